#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cmake/headers.cmake lists every header: what is not listed is neither installed nor checked. The unit of the compiled
# form, <limber/impl/src.hpp>, includes every file of definitions (.ipp) but those of engines, which it does not link.
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

if ! diff -u --label 'cmake/headers.cmake' cmake/headers.cmake --label 'the tree' <(bash cmake/list_headers.sh .); then
  complain "cmake/headers.cmake and the tree differ: cmake/list_headers.sh writes the list"
fi
unit=include/limber/impl/src.hpp
while IFS= read -r definitions; do
  grep -qxF "#include <${definitions#include/}>" "$unit" 2>/dev/null || complain "$unit: does not include <${definitions#include/}>"
done < <(files | grep -E '^include/limber/.*\.ipp$' | grep -vE '^include/limber/(sim/|state/|.*/(gloo|mpi|nccl)[a-z_]*\.ipp$)' || true)
exit $wrong

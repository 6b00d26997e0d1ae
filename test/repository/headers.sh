#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cmake/headers.cmake lists every header: what is not listed is neither installed nor checked.
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

if ! diff -u --label 'cmake/headers.cmake' cmake/headers.cmake --label 'the tree' <(bash cmake/list_headers.sh .); then
  complain "cmake/headers.cmake and the tree differ: cmake/list_headers.sh writes the list"
fi
exit $wrong

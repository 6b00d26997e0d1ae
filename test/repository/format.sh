#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sources are as clang-format 14 writes them; versions differ, so no other is asked.
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

tool=$(command -v clang-format-14 || command -v clang-format || true)
if [[ -z $tool ]] || ! "$tool" --version | grep -q 'version 14\.'; then
  echo "skipped: clang-format 14 was not found"
  exit 77
fi
files | grep -E '\.(hpp|ipp|cuh|cpp|cu)$' | tr '\n' '\0' | xargs -0 "$tool" --dry-run -Werror --ferror-limit=3

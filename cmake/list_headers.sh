#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints what cmake/headers.cmake must say for the headers that are in the tree:
#   cmake/list_headers.sh > list && mv list cmake/headers.cmake
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

list() {  # <variable> <folder> <find expression>...
  printf 'set(%s' "$1"
  if [[ -d $2/limber ]]; then
    (cd "$2" && find limber -type f \( "${@:3}" \) | LC_ALL=C sort | sed 's/^/    /' | sed '1s/^/\n/' | head -c -1)
  fi
  printf ')\n'
}

cat <<'HEAD'
# SPDX-License-Identifier: Apache-2.0
# Every header that is installed. cmake/list_headers.sh writes this file; a test compares it with the tree.

HEAD
list LIMBER_HEADERS include -name '*.hpp' -o -name '*.ipp'
echo
list LIMBER_CUDA_HEADERS cuda -name '*.hpp' -o -name '*.cuh'

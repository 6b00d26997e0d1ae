#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check.sh <ptx>: what the kernels in it do to memory and in which precision (check.awk).
# check.sh <ptx> --ptxas <ptxas> <arch>: also what ptxas says of registers and spills.
# check.sh <ptx> --flags <name> <ptx>: the same source compiled with other flags has the same arithmetic.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

awk -f "$here/read.awk" "$1" >"$scratch/ops"
case ${2:-} in
  --flags)
    awk -f "$here/read.awk" "$4" >"$scratch/other"
    awk -f "$here/compare.awk" "$scratch/ops" "$scratch/other" | sort >"$scratch/report"
    what="with $3"
    ;;
  --ptxas)
    if ! "$3" -v -arch="$4" "$1" -o /dev/null >"$scratch/ptxas.log" 2>&1; then
      cat "$scratch/ptxas.log"
      exit 1
    fi
    awk -f "$here/check.awk" -v with_log=1 "$scratch/ops" "$scratch/ptxas.log" | sort >"$scratch/report"
    what=$4
    ;;
  *)
    awk -f "$here/check.awk" "$scratch/ops" | sort >"$scratch/report"
    what=$1
    ;;
esac
if [[ -s $scratch/report ]]; then
  printf '%s:\n' "$what"
  c++filt <"$scratch/report" 2>/dev/null || cat "$scratch/report"
  exit 1
fi
printf '%s: %d kernels\n' "$what" "$(grep -c ' entry 1$' "$scratch/ops")"

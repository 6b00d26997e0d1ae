#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiles device_probe.cu for each architecture with all warnings as errors, and reads its PTX: no fp64 and no
# call in a kernel of float, conversions of 16-bit types by one instruction, no product and sum that the compiler
# may fuse or not (the same operations under --fmad=false).
#   device_probe.sh <nvcc> <host compiler> <project folder> <folder for PTX> <sm_..>...
set -eu
nvcc=$1 compiler=$2 project=$3 out=$4
shift 4
first=$1
mkdir -p "$out"

for arch in "$@"; do
  ptx=$out/device_probe.$arch.ptx
  compile() {
    "$nvcc" -ccbin "$compiler" -std=c++20 -Werror all-warnings -I"$project/include" -I"$project/test" \
      -arch="$arch" "$1" -ptx "$project/test/headers/device_probe.cu" -o "$2"
  }
  compile --fmad=true "$ptx"
  # A register that is declared and never used is no instruction.
  awk -v arch="$arch" '
    /^\.visible \.entry|^\.func|^\.visible \.func/ { name = $0; narrow = /4fp32/; narrows += narrow; wides += /4fp64/ }
    /^[ \t]*\.reg/ { next }
    narrow && (/\.f64/ || /call/) { print arch ": fp64 or a call in " name "\n  " $0; bad = 1 }
    !narrow && /\.f64/ { doubles++ }
    /cvt\.rn\.bf16\.f32/ { to_bf16++ }
    /cvt\.rn\.f16\.f32/ { to_f16++ }
    /cvt\.f32\.f16/ { from_f16++ }
    END {
      if (narrows < 30 || wides < 70 || doubles == 0) {
        print arch ": " narrows + 0 " kernels of float and " wides + 0 " of double; the probe has lost some"; bad = 1
      }
      if (!to_bf16 || !to_f16 || !from_f16) { print arch ": 16-bit types are not converted by the hardware"; bad = 1 }
      if (!bad) print arch ": " narrows " kernels of float without fp64, " wides " of double"
      exit bad
    }' "$ptx"

  # Once is enough: fusing is decided before the architecture is. cosine_restarts is left out, because the
  # toolkit's expm1 holds such a pair (a product by a power of two, which is exact either way).
  [ "$arch" = "$first" ] || continue
  compile --fmad=false "$out/unfused.ptx"
  for file in "$ptx" "$out/unfused.ptx"; do
    sed 's/\.rn\.f64/.f64/' "$file" | awk '
      /^\.visible \.entry/ { on = !/cosine_restarts/ }
      on && NF && !/^[ \t]*\.reg/ { print }
      /^}/ { on = 0 }' >"$file.kernels"
  done
  diff "$ptx.kernels" "$out/unfused.ptx.kernels" >"$out/fused.diff" || {
    echo "$arch: a bare a * b + c in device code:"
    head -20 "$out/fused.diff"
    exit 1
  }
done

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The reader of PTX passes a clean kernel, and finds what is wrong in one made up to be.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

each=_ZN6limber3gpu9run_itemsINS0_9each_bodyIfN5probe8sgd_stepEEEEvT_l
congruent=_ZN11limber_test9congruentIN5probe12copy_f32_1_1EEEvT0_
wide=_ZN6limber3gpu9run_itemsINS0_9each_bodyIdN5probe8sgd_stepEEEEvT_l

# kernel <name> <instruction>...: one that loads and stores 16 bytes, and does this besides.
kernel() {
  printf '.visible .entry %s(\n\t.param .u64 p\n)\n.maxntid 256\n{\n\t.reg .f32 %%f<9>;\n\n' "$1"
  printf '\tld.param.u64 %%rd1, [p];\n$L__BB0_1:\n\tld.global.v4.u32 {%%r1, %%r2, %%r3, %%r4}, [%%rd1];\n'
  printf '\t// begin inline asm\n\tmul.rn.f32 %%f1, %%f2, %%f3;\n\t// end inline asm\n'
  shift
  [[ $# -eq 0 ]] || printf '\t%s\n' "$@"
  printf '\tst.global.v4.f32 [%%rd1], {%%f1, %%f2, %%f3, %%f4};\n\t@%%p1 bra $L__BB0_1;\n\tret;\n}\n'
}

# A ptxas that says so many bytes of stack frame and of spills, and so many registers.
tool() {
  cat >"$scratch/ptxas" <<SAYS
#!/bin/sh
echo "ptxas info    : Function properties for $each"
echo "    $1 bytes stack frame, $2 bytes spill stores, $2 bytes spill loads"
echo "ptxas info    : Used ${3:-40} registers, used 0 barriers"
SAYS
  chmod +x "$scratch/ptxas"
}

# expect <words, or "" for a pass> <argument of check.sh after the PTX>...: looks at $scratch/ptx
expect() {
  local words=$1 output status=0
  shift
  output=$(bash "$here/check.sh" "$scratch/ptx" "$@" 2>&1) || status=$?
  if [[ -z $words && $status -ne 0 ]] || [[ -n $words && ($status -eq 0 || $output != *"$words"*) ]]; then
    printf 'self-test: wanted "%s", got status %s and:\n%s\n' "$words" "$status" "$output"
    failed=1
  fi
}

# with <words> <name> <instruction>...
with() {
  local words=$1
  shift
  kernel "$@" >"$scratch/ptx"
  expect "$words"
}

with '' "$each"
with '' "$congruent"
with 'each/float/sgd_step: 1 × add.rn.f64: double precision' "$each" 'add.rn.f64 %fd1, %fd2, %fd3;'
with 'cvt.rn.f32.f64: double precision' "$each" '@%p2 cvt.rn.f32.f64 %f1, %fd1;'
with '' "$each" 'mov.f64 %fd1, %fd2;' 'ld.global.f64 %fd1, [%rd4];'
with '' "$wide" 'add.rn.f64 %fd1, %fd2, %fd3;'
with '1 × mul.f32: a compiler' "$each" 'mul.f32 %f1, %f2, %f3;'
with 'mul.rn.ftz.f32: a compiler' "$each" 'mul.rn.ftz.f32 %f1, %f2, %f3;'
with 'st.local.f32: local memory' "$each" 'st.local.f32 [%rd3], %f1;'
with 'not inlined' "$each" '{ call.uni (retval0), update, (param0);'
with 'not known to be global' "$each" 'ld.f32 %f1, [%rd5];'
with '' "$congruent" 'ld.global.f32 %f1, [%rd1];' 'st.global.f32 [%rd1], %f1;'
with 'copy_f32_1_1: 2 narrow loads' "$congruent" 'ld.global.f32 %f1, [%rd1];' 'ld.global.v2.f32 {%f1, %f2}, [%rd2];'
with '2 narrow stores' "$congruent" 'st.global.u32 [%rd1], %r1;' 'st.global.u16 [%rd1+4], %rs1;'

kernel "$each" | sed '/ld.global.v4/d' >"$scratch/ptx"
expect 'no load of 16 bytes'
kernel "$each" | sed 's/st.global.v4.f32/st.global.v2.f32/' >"$scratch/ptx"
expect 'no store of 16 bytes'
echo '// nothing' >"$scratch/ptx"
expect 'no kernel in it'

kernel "$each" >"$scratch/ptx"
tool 0 0
expect '' --ptxas "$scratch/ptxas" sm_90
tool 0 16
expect 'spills' --ptxas "$scratch/ptxas" sm_90
tool 32 0
expect '32 bytes of stack' --ptxas "$scratch/ptxas" sm_90
tool 0 0 136
expect '136 registers' --ptxas "$scratch/ptxas" sm_90
tool 0 0 128
expect '' --ptxas "$scratch/ptxas" sm_90
kernel "$wide" >>"$scratch/ptx"
tool 0 0
expect 'told of 1 kernels, and not of 2' --ptxas "$scratch/ptxas" sm_90
printf '#!/bin/sh\necho refused\nexit 2\n' >"$scratch/ptxas"
expect 'refused' --ptxas "$scratch/ptxas" sm_90

kernel "$each" >"$scratch/ptx"
kernel "$each" 'add.s32 %r1, %r2, %r3;' >"$scratch/other"
expect '' --flags --any "$scratch/other"
kernel "$each" 'fma.rn.f32 %f1, %f2, %f3, %f4;' >"$scratch/other"
expect 'each/float/sgd_step: 1 more fma.rn.f32' --flags --any "$scratch/other"
kernel "$each" | sed 's/mul.rn.f32/mul.rn.ftz.f32/' >"$scratch/other"
expect '1 fewer mul.rn.f32' --flags --any "$scratch/other"
exit $failed

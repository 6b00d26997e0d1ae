# SPDX-License-Identifier: Apache-2.0
# Two readings by read.awk, of one source compiled with other flags: every kernel must have the same
# floating-point operations, as often, whole opcodes with rounding and .ftz. Prints what differs.
$2 !~ /\.(f16|f16x2|bf16|bf16x2|f32|f64)(\.|$)/ || $2 ~ /^(ld|st|mov|selp)\./ { next }
{ count[$1 " " $2] += FNR == NR ? $3 : -$3 }
END {
  for (key in count) {
    if (count[key] == 0) continue
    split(key, part, " ")
    print part[1] ": " (count[key] > 0 ? count[key] " fewer " : -count[key] " more ") part[2]
  }
  if (NR == FNR) { print "two readings with floating-point operations are needed" }
}

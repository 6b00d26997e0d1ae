# SPDX-License-Identifier: Apache-2.0
# Reads what read.awk found, then (-v log=1) what `ptxas -v` said. Prints one line for each thing that is
# wrong with a kernel:
#
#   - spills, or anything else in local memory                          all kernels
#   - more registers than 16 warps on a multiprocessor leave each       each/float/...
#   - a double-precision instruction other than a move                 .../float/...
#   - not one 16-byte load or store of global memory                    each/..., norm/... (loads)
#   - operands (name_<loaded>_<stored>) accessed in smaller pieces,     congruent/...
#     but for the one element at a time before and after the groups
#   - calls, and arithmetic that a flag of the compiler may change      all kernels
BEGIN {
  # Rounding by name, no .ftz and no .approx: what math.hpp promises.
  changeable = "^(add|sub|mul|mad|fma|div|rcp|sqrt|rsqrt)\\.(f32|f64)$|\\.ftz|\\.approx|\\.full"
}

function complain(kernel, what) { print kernel ": " what }

function wide(op) { return op ~ /\.(v4\.[a-z]32|v2\.[a-z]64|v8\.[a-z](16|32)|v4\.[a-z]64|b128)$/ }

FILENAME ~ /\.log$/ {
  if (match($0, /Function properties for .*/)) who = substr($0, RSTART + 24)
  if (/bytes stack frame/ && $1 + 0 > 0) complain(who, $1 " bytes of stack")
  if (/bytes spill/ && match($0, /[1-9][0-9]* bytes spill/)) complain(who, "spills: " $0)
  if (/Used [0-9]+ registers/ && match($0, /Used [0-9]+/) && who ~ /each_bodyIf/ && substr($0, RSTART + 5, RLENGTH - 5) + 0 > 128)
    complain(who, substr($0, RSTART, RLENGTH) " registers: one block of 256 threads fits at a time")
  if (/Function properties/) ++properties
  next
}

{
  kernel = $1; op = $2; times = $3
  if (op == "entry") { seen[kernel] = 1; ++entries; next }
  if (op ~ /\.local/) complain(kernel, times " × " op ": local memory")
  if (op ~ /^call/ && kernel != "(function)") complain(kernel, times " × " op ": a call that was not inlined")
  if (op ~ changeable) complain(kernel, times " × " op ": a compiler's flag may change it")
  if (kernel ~ /\/float\// && op ~ /\.f64/ && op !~ /^(mov|ld|st|selp)\./) complain(kernel, times " × " op ": double precision")
  if (op ~ /^ld\.(weak\.|relaxed\.)?(global|b|u|s|f|v)/ || op ~ /^ld\.volatile/) {
    if (wide(op)) loads[kernel] += times; else narrow_loads[kernel] += times
    if (op !~ /global/) generic[kernel] += times
  }
  if (op ~ /^st\.(weak\.|relaxed\.)?(global|b|u|s|f|v)/) {
    if (wide(op)) stores[kernel] += times; else narrow_stores[kernel] += times
    if (op !~ /global/) generic[kernel] += times
  }
}

END {
  if (entries == 0) complain("the PTX", "no kernel in it")
  if (with_log && properties < entries) complain("ptxas", "told of " properties + 0 " kernels, and not of " entries)
  for (kernel in seen) {
    if (generic[kernel] > 0) complain(kernel, generic[kernel] " accesses of memory that is not known to be global")
    if (kernel ~ /^(each|norm|congruent)\// && !loads[kernel]) complain(kernel, "no load of 16 bytes")
    if (kernel ~ /^(each|congruent)\// && !stores[kernel]) complain(kernel, "no store of 16 bytes")
    if (kernel !~ /^congruent\//) continue
    n = split(kernel, part, "_")
    if (loads[kernel] < part[n - 1]) complain(kernel, loads[kernel] + 0 " loads of 16 bytes for " part[n - 1] " operands")
    if (stores[kernel] < part[n]) complain(kernel, stores[kernel] + 0 " stores of 16 bytes for " part[n] " operands")
    if (narrow_loads[kernel] > part[n - 1]) complain(kernel, narrow_loads[kernel] " narrow loads; " part[n - 1] " single elements explain no more")
    if (narrow_stores[kernel] > part[n]) complain(kernel, narrow_stores[kernel] " narrow stores; " part[n] " single elements explain no more")
  }
}

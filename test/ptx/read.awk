# SPDX-License-Identifier: Apache-2.0
# Reads PTX; prints "<kernel> <opcode> <times>" for every opcode of every kernel, and what is called by
# none of its own as "(function)". An opcode is a whole one: "ld.global.v4.u32", "mul.rn.ftz.f32".

# each_body<float, probe::sgd_step, …> and congruent<probe::sgd_f32_3_2, …> in a mangled name:
# "each/float/sgd_step" and "congruent/float/sgd_f32_3_2"; else the name as it is.
function short(name,  body, type, rest, length_of) {
  if (!match(name, /5probe[0-9]+/)) return name
  rest = substr(name, RSTART + 6)
  length_of = rest + 0
  sub(/^[0-9]+/, "", rest)
  body = name ~ /9congruentI/ ? "congruent" : name ~ /9each_bodyI/ ? "each" : name ~ /9norm_bodyI/ ? "norm" : "other"
  type = name ~ /(each|norm)_bodyId/ ? "double" : "float"
  return body "/" type "/" substr(rest, 1, length_of)
}

{ sub(/\/\/.*/, "") }

/^[ \t]*(\.[a-z]+[ \t]+)*\.(entry|func)[ \t]/ {
  line = $0
  if (line ~ /\.entry/) {
    sub(/.*\.entry[ \t]+/, "", line)
    sub(/[^A-Za-z0-9_$].*/, "", line)
    kernel = short(line)
    kernels[++n] = kernel
  } else {
    kernel = "(function)"
  }
  next
}

kernel != "" {
  line = $0
  sub(/^[ \t{]*(@!?%p[0-9]+[ \t]+)?/, "", line)
  if (line !~ /^[a-z][a-z0-9_]*[.: \t;]/ || line ~ /^[A-Za-z0-9_$]+:/) next
  sub(/[ \t;].*/, "", line)
  ++count[kernel " " line]
}

END {
  for (k = 1; k <= n; ++k) print kernels[k], "entry", 1
  for (key in count) print key, count[key]
}

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What stands between [readme-begin] and [readme-end] in examples/quickstart.cpp, less its common
# indentation, stands as a whole ```cpp block in README.md.
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

[[ -f examples/quickstart.cpp ]] || { echo "examples/quickstart.cpp: missing"; exit 1; }
[[ -f README.md ]] || { echo "README.md: missing"; exit 1; }

# Prints block after block, each ended by a line with a form feed.
blocks=$(awk '
  /\[readme-end\]/ {
    for (i = 1; i <= n; ++i) print substr(lines[i], shift + 1)
    if (n > 0) print "\f"
    inside = 0
  }
  inside {
    lines[++n] = $0
    match($0, /^ */)
    if ($0 != "" && (shift < 0 || RLENGTH < shift)) shift = RLENGTH
  }
  /\[readme-begin\]/ { inside = 1; n = 0; shift = -1 }
  END { if (inside) print "unclosed\n\f" }
' examples/quickstart.cpp)

[[ -n $blocks ]] || complain "examples/quickstart.cpp: nothing between [readme-begin] and [readme-end]"
readme=$'\n'$(<README.md)$'\n'
while IFS= read -r -d $'\f' block; do
  block=${block#$'\n'}
  [[ -n $block ]] || continue
  [[ $readme == *$'\n```cpp\n'"$block"$'```\n'* ]] ||
    complain "README.md: has no \`\`\`cpp block with just these lines of examples/quickstart.cpp:"$'\n'"$block"
done <<<"$blocks"
exit $wrong

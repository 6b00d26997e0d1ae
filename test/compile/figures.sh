#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Counts what a unit that uses Limber gives its compiler to do, and fails where a count has grown by more than a
# tenth over figures.txt, which holds the counts of one major version of g++: lines that are parsed, those of Limber
# among them, bytes of code (-Os), functions and objects made from templates and inline functions (-O0). No times.
#   figures.sh [--write] [compiler]      --write: replaces figures.txt
set -euo pipefail
export LC_ALL=C
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$folder/../.." && pwd)
figures=$folder/figures.txt

write=
[[ ${1:-} != --write ]] || { write=yes && shift; }
compiler=${1:-g++}

name=$("$compiler" -dM -E -x c++ /dev/null |
  awk '$2 == "__GNUC__" {major = $3} $2 == "__clang__" {other = 1} END {print other ? "no g++" : "g++ " major}')
known=$(sed -n 's/^# compiler: //p' "$figures" 2>/dev/null || true)
if [[ $name == 'no g++' ]]; then
  echo "skipped: $compiler is $name"
  exit 77
elif [[ -z $write && $name != "$known" ]]; then
  echo "skipped: figures.txt holds the counts of $known, and $compiler is $name"
  exit 77
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo '#include <limber/limber.hpp>' >"$scratch/include.cpp"
compile() { "$compiler" -std=c++20 -I"$root/include" "$@"; }
measure() {
  local form flags=()
  for form in header_only compiled; do
    [[ $form == header_only ]] || flags=(-DLIMBER_COMPILED)
    # Line markers name the file of what follows: # 12 "path" ...
    compile ${flags[@]+"${flags[@]}"} -E "$scratch/include.cpp" | awk -v form="$form" '
      /^# [0-9]+ "/ { own = $3 ~ /\/include\/limber\//; next }
      /^#/ || NF == 0 { next }
      { ++lines; owned += own }
      END { print "include." form ".lines", lines; print "include." form ".own_lines", owned }'
    compile ${flags[@]+"${flags[@]}"} -Os -c "$root/examples/quickstart.cpp" -o "$scratch/small.o"
    size "$scratch/small.o" | awk -v form="$form" 'NR == 2 {print "quickstart." form ".code_bytes", $1}'
    compile ${flags[@]+"${flags[@]}"} -O0 -c "$root/examples/quickstart.cpp" -o "$scratch/plain.o"
    nm "$scratch/plain.o" | awk -v form="$form" '
      $(NF - 1) ~ /^[WVu]$/ { ++n } END { print "quickstart." form ".instances", n }'
  done
}
measure >"$scratch/now"

if [[ -n $write ]]; then
  {
    echo '# Written by test/compile/figures.sh --write; the test limber.compile.growth compares with it.'
    echo "# compiler: $name"
    cat "$scratch/now"
  } >"$figures"
  cat "$figures"
  exit
fi
awk '
  /^#/ { next }
  FNR == NR { was[$1] = $2; next }
  !($1 in was) { print $1 ": not in figures.txt"; bad = 1; next }
  {
    change = 100 * ($2 / was[$1] - 1)
    said = change > 10 ? ": grown by more than a tenth" : change < -10 ? ": shrunk; write the figures anew" : ""
    printf "%-38s %8d, was %8d, %+.1f %%%s\n", $1, $2, was[$1], change, said
    bad = bad || change > 10
  }
  END {
    if (bad) print "If that is meant: test/compile/figures.sh --write, and say in the commit what is gained."
    exit bad
  }' "$figures" "$scratch/now"

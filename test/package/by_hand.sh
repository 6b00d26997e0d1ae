#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The compiled form without CMake: one unit includes <limber/impl/src.hpp>, and a program is linked from it and from
# units that are compiled with -DLIMBER_COMPILED as well. A header-only unit among them is a link error that says so,
# with every linker that is installed but mold, which compares no kinds of symbols; the library comes last, for lld is
# silent if a header-only unit comes after it.
#   by_hand.sh <folder for what is built> <folder of the project> <compiler, or launcher and compiler>...
set -euo pipefail
out=$1 project=$2
shift 2
mkdir -p "$out"
wrong=0
complain() {
  printf '%s\n' "$*"
  wrong=1
}

version=$(awk '/^#define LIMBER_VERSION_/ {printf "%s%s", n++ ? "." : "", $3}' "$project/include/limber/core/version.hpp")
compiler=("$@")
compile() {  # <source> <object> <flag>...
  local source=$1 object=$2
  shift 2
  "${compiler[@]}" -std=c++20 -O0 -I"$project/include" -DPACKAGE_VERSION="\"$version\"" "$@" -c "$source" -o "$out/$object"
}
link() {  # with $objects and $linker
  "${compiler[-1]}" -pthread "${objects[@]/#/$out/}" -o "$out/program" ${linker[@]+"${linker[@]}"} >"$out/said" 2>&1
}

echo '#include <limber/impl/src.hpp>' >"$out/limber.cpp"
compile "$out/limber.cpp" limber.o -DLIMBER_COMPILED
compile "$project/test/package/stranger/main.cpp" main.o -DLIMBER_COMPILED -DFORM_compiled
compile "$project/test/package/stranger/train.cpp" train.o -DLIMBER_COMPILED
echo '#include <limber/core/error.hpp>
void other() { throw limber::error({.engine = "none"}); }' >"$out/other.cpp"
compile "$out/other.cpp" other.o

if compile "$out/limber.cpp" refused.o 2>"$out/said"; then
  complain '<limber/impl/src.hpp> compiles without LIMBER_COMPILED'
elif ! grep -q 'define LIMBER_COMPILED there and in all others' "$out/said"; then
  complain "<limber/impl/src.hpp> is refused without the reason:" && head -n 5 "$out/said"
fi

tried=
for name in '' bfd gold lld mold; do
  linker=(${name:+"-fuse-ld=$name"})
  objects=(main.o train.o limber.o)
  if [[ -n $name ]] && ! { command -v "ld.$name" >/dev/null && link; }; then continue; fi
  tried+=" ${name:-default}"
  if ! link; then
    complain "${name:-the default linker}: two units and the library do not link:" && head -n 5 "$out/said"
  elif ! "$out/program"; then
    complain "${name:-the default linker}: the program fails"
  fi
  for order in 'main.o other.o train.o' 'other.o main.o train.o' 'main.o train.o other.o'; do
    read -ra objects <<<"$order limber.o"
    if [[ $name == mold ]]; then
      continue
    elif link; then
      complain "${name:-the default linker}: both forms were linked into one program: ${objects[*]}"
    elif ! grep -q 'limber_is_header_only_in_one_unit_and_compiled_in_another' "$out/said"; then
      complain "${name:-the default linker}: mixing the forms is refused without the reason:" && head -n 5 "$out/said"
    fi
  done
done
echo "linkers:$tried"
exit $wrong

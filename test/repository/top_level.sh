#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What may stand at the top level; that every source says its licence; that no file holds a path of the machine it was
# written on. Headers that are too long to read are named, and pass.
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

allowed=' CMakeLists.txt CMakePresets.json README.md LICENSE CHANGELOG.md CONTRIBUTING.md include cuda examples test bench cmake '
while IFS= read -r entry; do
  [[ $entry == .* || $allowed == *" $entry "* ]] || complain "$entry: not an entry that the top level has"
done < <(files | sed 's|/.*||' | sort -u)

while IFS= read -r file; do
  case $file in
    *.hpp | *.ipp | *.cuh | *.cpp | *.cu) first='// SPDX-License-Identifier: Apache-2.0' ;;
    *CMakeLists.txt | *.cmake | *.cmake.in) first='# SPDX-License-Identifier: Apache-2.0' ;;
    *) continue ;;
  esac
  [[ $(head -n 1 "$file") == "$first" ]] || complain "$file:1: must be '$first'"
  case $file in
    include/* | cuda/*) [[ $(wc -l <"$file") -le 400 ]] || echo "warning: $file: more than 400 lines" ;;
  esac
done < <(files)

if files | tr '\n' '\0' | xargs -0 grep -InE '(^|[^A-Za-z0-9_./-])/(home|root|work|Users|mnt|tmp)/[A-Za-z0-9_]'; then
  complain "a path of somebody's machine (above)"
fi
exit $wrong

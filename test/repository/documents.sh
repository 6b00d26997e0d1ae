#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# README.md and CONTRIBUTING.md name only what exists: paths in back-ticks and in code blocks, headers in
# #include <limber/...>, presets after --preset, labels after -L, and targets after --target.
source "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

# A path may hold globs and <placeholders>; a folder may end in a slash.
exists() {
  local pattern
  pattern=$(sed -E 's/<[^>]*>/*/g; s|/$||' <<<"$1")
  compgen -G "$pattern" >/dev/null
}

top=$(files | sed 's|/.*||' | sort -u)
for document in README.md CONTRIBUTING.md; do
  [[ -f $document ]] || { complain "$document: missing"; continue; }

  # Code: spans in back-ticks, and the lines of fenced blocks.
  code=$(awk '
    /^ *```/ { fenced = !fenced; next }
    fenced { print; next }
    {
      n = split($0, parts, "`")
      for (i = 2; i < n || (i == n && n % 2 == 0); i += 2) print parts[i]
    }' "$document")

  while IFS= read -r word; do
    word=${word#./}
    first=${word%%/*}
    case $word in
      limber/*) exists "include/$word" || exists "cuda/$word" || complain "$document: no header '$word'" ;;
      */*)
        # Paths begin with an entry of the top level; others (a/b as a fraction, build/...) are no paths.
        if grep -qxF -- "$first" <<<"$top" || [[ $first =~ ^(include|cuda|examples|test|bench|cmake|\.ci)$ ]]; then
          exists "$word" || complain "$document: '$word' does not exist"
        fi
        ;;
      *.md | LICENSE | CMakeLists.txt | CMakePresets.json | .clang-format) exists "$word" || complain "$document: '$word' does not exist" ;;
    esac
  done < <(grep -oE '(^|[^A-Za-z0-9_./<>*-])[A-Za-z0-9_.<>*-]+(/[A-Za-z0-9_.<>*-]+)*/?' <<<"$code" |
    sed -E 's/^[^A-Za-z0-9_./<>*-]//; s/^<(limber\/[^>]*)>$/\1/; s/[.]$//' | sort -u)

  while IFS= read -r preset; do
    grep -qE "\"name\": \"$preset\"" CMakePresets.json || complain "$document: no preset '$preset'"
  done < <(grep -oE -- '--preset[ =][a-z_]+' <<<"$code" | sed -E 's/.*[ =]//' | sort -u)

  while IFS= read -r label; do
    grep -qE "^set\(labels .*\b$label\b" test/CMakeLists.txt || complain "$document: no label '$label'"
  done < <(grep -oE -- '-L +[a-z_]+' <<<"$code" | sed -E 's/.* //' | sort -u)

  while IFS= read -r target; do
    if ! grep -rqE "(add_executable|add_library|add_custom_target|limber_executable)\($target\b" --include=CMakeLists.txt --include='*.cmake' .; then
      complain "$document: no target '$target'"
    fi
  done < <(grep -oE -- '--target +[A-Za-z0-9_-]+' <<<"$code" | sed -E 's/.* //' | sort -u)
done
exit $wrong

# SPDX-License-Identifier: Apache-2.0
# Sourced by the checks of the tree. Each is called with the root of a tree, prints one line for each
# thing that is wrong, and exits 1 if there was one, 77 if it cannot run here.
set -euo pipefail
cd "${1:?usage: $0 <root of the tree>}"
export LC_ALL=C.UTF-8

# The files of the tree: what git knows or would add; without git, all but build folders.
files() {
  if [[ -e .git ]] && command -v git >/dev/null; then
    git -c safe.directory='*' ls-files --cached --others --exclude-standard | while IFS= read -r file; do
      if [[ -f $file ]]; then printf '%s\n' "$file"; fi
    done
  else
    find . -type f -not -path './build/*' -not -path './.git/*' | sed 's|^\./||'
  fi | sort -u
}

wrong=0
complain() {
  printf '%s\n' "$*"
  wrong=1
}

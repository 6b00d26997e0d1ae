#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The set-up of the scripts, in a world where gnuplot is missing and apt-get only writes down what it is
# asked: touches nothing when all is there, installs what is missing, and without apt-get names it and stops.
set -euo pipefail
setup=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../cmake" && pwd)/setup.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

world=$scratch/bin
mkdir "$world"
for folder in /bin /usr/bin /usr/local/bin; do
  if compgen -G "$folder/*" >/dev/null; then ln -sf "$folder"/* "$world"; fi
done
rm -f "$world"/{apt-get,sudo,gnuplot,ninja,id}
ln -s "$(command -v true)" "$world/ninja"

identity() { printf '#!/bin/sh\necho %s\n' "$1" >"$world/id"; chmod +x "$world/id"; }
packager() {  # <shell line that stands for a successful install>
  printf '#!/bin/sh\necho "$@" >>"%s/asked"\ncase "$1" in install) %s ;; esac\n' "$scratch" "$1" >"$world/apt-get"
  chmod +x "$world/apt-get"
}
gnuplot() { ln -sf "$(command -v true)" "$world/gnuplot"; }

# expect <description> <status: 0 or 1> <words> <things needed>...: `asked` is what apt-get heard.
expect() {
  local description=$1 wanted=$2 words=$3 output status=0
  shift 3
  rm -f "$scratch/asked"
  output=$(PATH=$world bash -c 'source "$1"; shift; need "$@"' run "$setup" "$@" 2>&1 </dev/null) || status=1
  asked=$(cat "$scratch/asked" 2>/dev/null || true)
  if [[ $status -ne $wanted || $output != *"$words"* ]]; then
    printf '%s: status %s, wanted %s with "%s", got:\n%s\n' "$description" "$status" "$wanted" "$words" "$output"
    failed=1
  fi
}
heard() {
  if [[ $asked != "$1" ]]; then
    printf 'apt-get heard:\n%s\nand not:\n%s\n' "$asked" "$1"
    failed=1
  fi
}

identity 0
gnuplot
packager :
expect 'all is there' 0 '' compiler ninja gnuplot
heard ''

rm "$world/gnuplot"
packager "ln -s /bin/true $world/gnuplot"
expect 'apt-get has it' 0 'installing gnuplot-nox with apt-get' ninja gnuplot
heard $'update\ninstall --yes --no-install-recommends gnuplot-nox'

rm "$world/gnuplot"
packager 'exit 100'
expect 'apt-get fails' 1 'apt-get failed; still missing: gnuplot' gnuplot
packager :
expect 'apt-get lies' 1 'gnuplot is still missing after apt-get install' gnuplot

identity 1000
expect 'neither root nor sudo' 1 'missing: gnuplot; run as root: apt-get install gnuplot-nox' gnuplot
heard ''
printf '#!/bin/sh\necho sudo "$1" >>"%s/asked"\nshift\nexec "$@"\n' "$scratch" >"$world/sudo"
chmod +x "$world/sudo"
packager "ln -s /bin/true $world/gnuplot"
expect 'with sudo' 0 'installing' gnuplot
heard $'sudo -n\nupdate\nsudo -n\ninstall --yes --no-install-recommends gnuplot-nox'

rm "$world"/{apt-get,gnuplot,ninja}
expect 'no apt-get' 1 'missing: Ninja, gnuplot; without apt-get, please install them by hand' ninja gnuplot
exit $failed

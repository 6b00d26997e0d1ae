#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
source "$(dirname "${BASH_SOURCE[0]}")/../../cmake/setup.sh"
export LC_ALL=C.UTF-8

usage() {
  cat <<'HELP'
Usage: bench/run compile [--runs=N] [--only=TEXT] [--compiler=NAME]... [--out=STEM]

What a unit that uses Limber costs its compiler, at -O2 -std=c++20, beside five headers of the standard library
and beside units of other libraries: seconds of user CPU, peak memory, bytes of code (`text` of size) and
preprocessed lines. Each compilation of a unit follows one of the five headers; seconds and ratio are those of the
quickest of N, so that a busy machine spoils little; the ratio of the five to themselves shows what is left of
that. About 10 minutes for g++ and clang++ with N = 3.

  --runs=N         compilations of each unit, 3 unless given
  --only=TEXT      only the units whose row holds TEXT, such as "quickstart" or "compiled"
  --compiler=NAME  instead of g++ and clang++
  --out=STEM       writes the report to STEM.md, too

Exit status 1: a unit costs more than its limit, or does not compile.
HELP
}

runs=3 only='' stem='' compilers=()
for argument in "$@"; do
  case $argument in
    -h | --help) usage; exit ;;
    --runs=*) runs=${argument#*=} ;;
    --only=*) only=${argument#*=} ;;
    --compiler=*) compilers+=("${argument#*=}") ;;
    --out=*) stem=${argument#*=} ;;
    *) die "bench compile: no option '$argument'; --help lists them" ;;
  esac
done
[[ $runs =~ ^[1-9][0-9]*$ ]] || die "bench compile: --runs=$runs is no number of compilations"
[[ ${#compilers[@]} -gt 0 ]] || compilers=(g++ clang++)
[[ -z $stem || -d $(dirname "$stem") ]] || die "bench compile: --out=$stem: there is no folder $(dirname "$stem")"
need compiler time

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
units=$limber_root/bench/compile
report=$scratch/report
flags=(-std=c++20 -O2 -I"$limber_root/include")
beyond=0 limits=0 held=0

tell() { printf '%s\n' "$*" | tee -a "$report"; }

# once <result> <command>...: "<seconds of user CPU> <KB at the peak>"
once() {
  local result=$1
  shift
  /usr/bin/time -f '%U %M' -o "$scratch/$result" "$@" >"$scratch/errors" 2>&1
}

# The first error, for a table.
why() { grep -m 1 -E 'error|fatal' "$scratch/errors" | sed "s|$limber_root/||g; s/|/\\\\|/g"; }

# row <unit> <form> <limit of the ratio> <limit of MB> <compiler> <flag>... <source>; "-" where there is no limit.
row() {
  local unit=$1 form=$2 most=$3 most_mb=$4 k verdict='' line
  shift 4
  [[ "$unit, $form" == *"$only"* || $unit == five* ]] || return 0
  printf '%s: %s, %s\n' "$compiler" "$unit" "$form" >&2
  : >"$scratch/times"
  for ((k = 0; k < runs; ++k)); do
    once five "$compiler" "${flags[@]}" -c "$units/five.cpp" -o "$scratch/five.o" ||
      die "$compiler compiles no unit of standard headers: $(head -n 1 "$scratch/errors")"
    if ! once unit "$@" -c -o "$scratch/unit.o"; then
      tell "| $unit | $form | does not compile: $(why) | | | | | | |"
      [[ $form == peer ]] || beyond=1
      return 0
    fi
    paste -d ' ' "$scratch/unit" "$scratch/five" >>"$scratch/times"
  done
  line=$(
    {
      "$@" -E 2>/dev/null | grep -cvE '^(#|[[:space:]]*$)'
      size "$scratch/unit.o" | awk 'NR == 2 {print $1}'
      cat "$scratch/times"
    } | awk -v most="$most" -v most_mb="$most_mb" '
      NR == 1 { lines = $1; next }
      NR == 2 { code = $1; next }
      {
        if (NR == 3 || $1 < unit) unit = $1
        if (NR == 3 || $3 < five) five = $3
        if ($2 > peak) peak = $2
      }
      END {
        ratio = unit / five
        mb = peak / 1024
        limit = most == "-" ? "" : "<= " most "x"
        if (most_mb != "-") limit = limit " and <= " most_mb " MB"
        holds = (most == "-" || ratio <= most) && (most_mb == "-" || mb <= most_mb)
        printf "%.2f | %.2f | %.0f | %d | %d | %s | %s\n", unit, ratio, mb, code, lines, limit,
               limit == "" ? "" : holds ? "yes" : "NO"
      }'
  )
  verdict=${line##* | }
  case $verdict in
    yes) limits=$((limits + 1)) held=$((held + 1)) ;;
    NO) limits=$((limits + 1)) beyond=1 ;;
  esac
  tell "| $unit | $form | $line |"
}

# peer <name> <command that compiles it>...
peer() {
  local name=$1
  shift
  row "$name" peer - - "$@"
}

measure() {  # with $compiler
  local compiled=(-DLIMBER_COMPILED) nvcc folder torch=()
  limits=0 held=0
  tell ''
  tell "$("$compiler" --version | head -n 1)"
  tell ''
  tell '| unit | form | CPU s | of five | MB | code bytes | lines | limit | holds |'
  tell '|---|---|--:|--:|--:|--:|--:|---|---|'
  row 'five standard headers' control - - "$compiler" "${flags[@]}" "$units/five.cpp"
  row '`<limber/limber.hpp>`' header-only 3 - "$compiler" "${flags[@]}" "$units/include.cpp"
  row '`<limber/limber.hpp>`' compiled 1.5 - "$compiler" "${flags[@]}" "${compiled[@]}" "$units/include.cpp"
  row quickstart header-only 18 400 "$compiler" "${flags[@]}" "$limber_root/examples/quickstart.cpp"
  row quickstart compiled 4 200 "$compiler" "${flags[@]}" "${compiled[@]}" "$limber_root/examples/quickstart.cpp"
  row 'nine by flag' header-only - - "$compiler" "${flags[@]}" "$units/nine_by_flag.cpp"
  row 'nine by flag' compiled 5 - "$compiler" "${flags[@]}" "${compiled[@]}" "$units/nine_by_flag.cpp"
  row 'nine constructor calls' compiled - - "$compiler" "${flags[@]}" "${compiled[@]}" "$units/nine_typed.cpp"
  if has gloo && has json; then
    row 'Gloo and checkpoints' compiled - - "$compiler" "${flags[@]}" "${compiled[@]}" "$units/gloo_and_state.cpp"
  fi
  row 'the library' compiled - - "$compiler" "${flags[@]}" "${compiled[@]}" -fno-math-errno "$units/library.cpp"

  if has eigen; then peer '`<Eigen/Dense>`' "$compiler" "${flags[@]}" -I/usr/include/eigen3 "$units/eigen.cpp"; fi
  folder=$(python3 -c 'import importlib.util as i; print(i.find_spec("torch").submodule_search_locations[0])' 2>/dev/null || true)
  [[ -z $folder ]] || torch=(-I"$folder/include" -I"$folder/include/torch/csrc/api/include")
  [[ ! -d /usr/include/torch/csrc/api/include ]] || torch+=(-I/usr/include/torch/csrc/api/include)
  if [[ ${#torch[@]} -gt 0 ]]; then
    peer '`<torch/torch.h>`' "$compiler" "${flags[@]}" "${torch[@]}" "$units/torch.cpp"
  fi
  nvcc=$(command -v nvcc || compgen -G /usr/local/cuda/bin/nvcc || true)
  if [[ -n $nvcc ]]; then
    peer '`<thrust/device_vector.h>`, nvcc' "$nvcc" -ccbin "$compiler" "${flags[@]}" "$units/thrust.cu"
  fi
  [[ $limits -eq 0 ]] || { tell '' && tell "$compiler: $held of $limits limits hold."; }
}

version=$(awk '/^#define LIMBER_VERSION_/ {printf "%s%s", n++ ? "." : "", $3}' "$limber_root/include/limber/core/version.hpp")
tell '# What a unit costs its compiler'
tell ''
tell "By \`bench/run compile --runs=$runs\`: the quickest of $runs compilations at \`-O2 -std=c++20\`, each beside the five"
tell 'standard headers that were compiled before it. CPU s: user time. MB: peak memory. Code bytes: `text` of `size`.'
tell 'Lines: preprocessed. The ratio of the control shows the noise.'
tell "Processor: $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1), $limber_jobs cores, load $(cut -d ' ' -f 1 /proc/loadavg). Limber $version."
for compiler in "${compilers[@]}"; do
  if command -v "$compiler" >/dev/null; then
    measure
  else
    tell ''
    tell "skipped: $compiler was not found"
  fi
done
[[ -z $stem ]] || cp "$report" "$stem.md"
exit $beyond

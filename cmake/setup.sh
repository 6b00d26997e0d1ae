# SPDX-License-Identifier: Apache-2.0
# The one set-up, sourced by examples/run, test/run, bench/run and .ci/run. Debian and Ubuntu: what is
# missing is installed with apt; elsewhere it is named, and the script stops.
set -euo pipefail

limber_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
limber_jobs=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)

say() { printf 'limber: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# A folder of real data, when there is one.
if [[ -z ${LIMBER_DATA:-} && -d $limber_root/../shared/data ]]; then
  LIMBER_DATA=$(cd "$limber_root/../shared/data" && pwd)
fi
[[ -z ${LIMBER_DATA:-} ]] || export LIMBER_DATA

# Precompiled headers and ccache agree only when told to.
export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros,include_file_mtime,include_file_ctime}

limber_compiler() {
  local candidate
  for candidate in ${CXX:-g++ clang++}; do
    if echo '#include <concepts>
int main() { return std::same_as<int, int> ? 0 : 1; }' | "$candidate" -std=c++20 -x c++ - -fsyntax-only 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

has_header() {  # <header>...: is one of them there?
  local compiler header folder options=()
  compiler=$(limber_compiler) || return 1
  local IFS=:
  for folder in ${CMAKE_PREFIX_PATH:-}; do options+=(-I "$folder/include"); done
  for header in "$@"; do
    if printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$header" |
      "$compiler" -std=c++20 ${options[@]+"${options[@]}"} -x c++ - -fsyntax-only 2>/dev/null; then return; fi
  done
  return 1
}

has_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | sed -n '1s/.* //p')
  [[ -n $version && $(printf '3.25\n%s\n' "$version" | sort -V | head -n 1) == 3.25 ]]
}

# What each thing is called, how it is found, and the Debian package that has it.
has() {
  case $1 in
    compiler) limber_compiler >/dev/null ;;
    cmake) has_cmake ;;
    ninja) command -v ninja >/dev/null ;;
    boost-test) has_header boost/test/unit_test.hpp ;;
    boost-context) has_header boost/context/detail/fcontext.hpp ;;
    eigen) has_header Eigen/Core eigen3/Eigen/Core ;;
    cli11) has_header CLI/CLI.hpp ;;
    json) has_header nlohmann/json.hpp ;;
    zlib) has_header zlib.h ;;
    gnuplot) command -v gnuplot >/dev/null ;;
    gloo) has_header gloo/allreduce.h ;;
    zeromq) has_header zmq.hpp ;;
    mpi) command -v mpicxx >/dev/null && command -v mpiexec >/dev/null ;;
    mpich) command -v mpicxx.mpich >/dev/null ;;
    mpich-launcher) command -v mpiexec.mpich >/dev/null ;;
    benchmark) has_header benchmark/benchmark.h ;;
    clang) command -v clang++ >/dev/null ;;
    time) [[ -x /usr/bin/time ]] ;;
    clang-runtime) echo 'int main() {}' | clang++ -fsanitize=thread -x c++ - -o /dev/null 2>/dev/null ;;
    *) die "set-up: nothing is known of '$1'" ;;
  esac
}
describe() {
  case $1 in
    compiler) echo 'a C++20 compiler (g++ 12 or clang++ 14)' g++ ;;
    cmake) echo 'CMake 3.25' cmake ;;
    ninja) echo 'Ninja' ninja-build ;;
    boost-test) echo 'Boost.Test 1.74' libboost-test-dev ;;
    boost-context) echo 'Boost.Context 1.74' libboost-context-dev ;;
    eigen) echo 'Eigen 3' libeigen3-dev ;;
    cli11) echo 'CLI11' libcli11-dev ;;
    json) echo 'nlohmann-json' nlohmann-json3-dev ;;
    zlib) echo 'zlib' zlib1g-dev ;;
    gnuplot) echo 'gnuplot' gnuplot-nox ;;
    gloo) echo 'Gloo' libgloo-dev ;;
    zeromq) echo 'ZeroMQ (cppzmq)' cppzmq-dev ;;
    mpi) echo 'Open MPI' libopenmpi-dev ;;
    mpich) echo 'MPICH' libmpich-dev ;;
    mpich-launcher) echo "MPICH's mpiexec" mpich ;;
    benchmark) echo 'Google Benchmark' libbenchmark-dev ;;
    clang) echo 'clang++' clang ;;
    time) echo 'GNU time' time ;;
    clang-runtime) echo "clang++'s sanitizers" libclang-rt-dev ;;
  esac
}

# need <thing>...: returns when all are there. The network is touched only if one is missing.
need() {
  local thing missing=() names=() packages=() root=() log
  for thing in "$@"; do
    if ! has "$thing"; then missing+=("$thing"); fi
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0

  for thing in "${missing[@]}"; do
    thing=$(describe "$thing")
    names+=("${thing% *}")
    packages+=("${thing##* }")
  done
  names=("$(printf '%s, ' "${names[@]}")")
  names=("${names[0]%, }")

  command -v apt-get >/dev/null || die "missing: ${names[0]}; without apt-get, please install them by hand"
  if [[ $(id -u) -ne 0 ]]; then
    command -v sudo >/dev/null || die "missing: ${names[0]}; run as root: apt-get install ${packages[*]}"
    root=(sudo)
    [[ -t 0 ]] || root+=(-n)
  fi
  say "installing ${packages[*]} with apt-get"
  log=$(mktemp)
  if ! { ${root[@]+"${root[@]}"} apt-get update &&
    ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive \
      apt-get install --yes --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "apt-get failed; still missing: ${names[0]}"
  fi
  rm -f "$log"
  for thing in "${missing[@]}"; do
    has "$thing" || die "$(describe "$thing" | sed 's/ [^ ]*$//') is still missing after apt-get install"
  done
}

# want <thing>...: the same, but goes on without them if that fails; what needs them is skipped.
want() { (need "$@") || say "going on without: what needs them is skipped"; }

# configure <preset>: says nothing unless it fails, but what was skipped.
configure() {
  local options=() log
  if command -v ccache >/dev/null; then options+=(-DCMAKE_{CXX,CUDA}_COMPILER_LAUNCHER=ccache); fi
  if [[ ! -f $limber_root/build/$1/CMakeCache.txt ]]; then
    options+=("-DCMAKE_CXX_COMPILER=$(limber_compiler)")
    say "configuring build/$1"
  fi
  log=$(mktemp)
  if ! (cd "$limber_root" && cmake --preset "$1" ${options[@]+"${options[@]}"}) >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "configuring build/$1 failed"
  fi
  grep -E '^(-- )?limber: ' "$log" | sed 's/^-- //' >&2 || true
  rm -f "$log"
}

# found_nvcc <preset>: whether the last `configure <preset>` found one that works. It is never installed here.
found_nvcc() { grep -q '^CMAKE_CUDA_COMPILER:[A-Z]*=/' "$limber_root/build/$1/CMakeCache.txt"; }

# build <preset> <target>...: one moving line on a terminal, else only what went wrong.
build() {
  local preset=$1 start=$SECONDS quiet=()
  shift
  [[ -t 1 ]] || quiet=(-- --quiet)
  say "building $* in build/$preset"
  NINJA_STATUS='[%f/%t] ' cmake --build "$limber_root/build/$preset" --parallel "$limber_jobs" --target "$@" \
    ${quiet[@]+"${quiet[@]}"} || die "building $* failed"
  say "built in $((SECONDS - start)) s"
}

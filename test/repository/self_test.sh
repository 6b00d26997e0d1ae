#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each check of the tree passes on a small clean tree, and fails on it with one thing made wrong.
set -euo pipefail
checks=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/tree
failed=0
formatter=$(command -v clang-format-14 || command -v clang-format || true)

write() {  # <file>: standard input becomes its text
  mkdir -p "$tree/$(dirname "$1")"
  cat >"$tree/$1"
}

header() {  # <file> <include>...: a header that includes these
  {
    printf '// SPDX-License-Identifier: Apache-2.0\n#pragma once\n\n'
    printf '#include %s\n' "${@:2}"
  } | write "$1"
}

make() {  # the clean tree, once
  header include/limber/core/config.hpp '<cstdint>'
  header include/limber/core/clock.hpp '<limber/core/config.hpp>' '<limber/core/impl/clock.ipp>'
  header include/limber/core/impl/clock.ipp '<limber/core/clock.hpp>' '<chrono>'
  echo 'inline auto now() { return std::chrono::steady_clock::now(); }' >>"$tree/include/limber/core/impl/clock.ipp"
  header include/limber/rule/sgd.hpp '<limber/core/config.hpp>'
  header include/limber/fuse/host.hpp '<limber/rule/sgd.hpp>' '<limber/fuse/impl/host.ipp>'
  header include/limber/fuse/impl/host.ipp '<limber/fuse/host.hpp>' '<omp.h>'
  header include/limber/comm/mpi.hpp '<mpi.h>'
  header include/limber/sync/exchange.hpp '<limber/fuse/host.hpp>' '<limber/comm/mpi.hpp>'
  header include/limber/optimizer.hpp '<limber/sync/exchange.hpp>'
  header include/limber/elastic/store.hpp '<limber/optimizer.hpp>'
  header include/limber/optimizer/impl/optimizer.ipp '<limber/optimizer.hpp>'
  header include/limber/comm/impl/mpi.ipp '<limber/core/config.hpp>'
  header include/limber/limber.hpp '<limber/optimizer.hpp>'
  header include/limber/impl/src.hpp '<limber/limber.hpp>' '<limber/core/impl/clock.ipp>' \
    '<limber/fuse/impl/host.ipp>' '<limber/optimizer/impl/optimizer.ipp>'
  header cuda/limber/cuda/gpu.cuh '<limber/fuse/host.hpp>' '<cub/cub.cuh>'
  mkdir -p "$tree/cmake"
  cp "$checks/../../cmake/list_headers.sh" "$tree/cmake/"
  cp "$checks/../../.clang-format" "$tree/"
  [[ -z $formatter ]] || find "$tree" -name '*.[hi]pp' -o -name '*.cuh' | xargs "$formatter" -i
  bash "$tree/cmake/list_headers.sh" "$tree" >"$scratch/list"
  write cmake/headers.cmake <"$scratch/list"
  write CMakePresets.json <<<'{"configurePresets": [{"name": "dev"}]}'
  write test/CMakeLists.txt <<<'# SPDX-License-Identifier: Apache-2.0
set(labels unit package)
add_custom_target(everything)'
  write examples/quickstart.cpp <<<'// SPDX-License-Identifier: Apache-2.0
int main() {
  // [readme-begin]
  int answer = 42;

  struct {
    int also = 43;
  } nested;
  // [readme-end]
}'
  write README.md <<<'Start with `include/limber/limber.hpp` and `cmake --preset dev`.

```cpp
int answer = 42;

struct {
  int also = 43;
} nested;
```'
  write CONTRIBUTING.md <<<'`test/CMakeLists.txt`, `include/limber/<room>/`, `ctest -L package`, `cmake --build . --target everything`, `#include <limber/core/config.hpp>`, `a/b`'
}

clean() {
  rm -rf "$tree"
  cp -r "$scratch/made" "$tree"
}

passes() {  # <check>
  local output
  if ! output=$(bash "$checks/$1.sh" "$tree" 2>&1); then
    printf 'self-test: %s must pass on a clean tree, but says:\n%s\n' "$1" "$output"
    failed=1
  fi
}

warns() {  # <check> <words it must say>
  local output
  if ! output=$(bash "$checks/$1.sh" "$tree" 2>&1) || [[ $output != *"$2"* ]]; then
    printf 'self-test: %s must pass with "%s", but says:\n%s\n' "$1" "$2" "$output"
    failed=1
  fi
  clean
}

catches() {  # <check> <words it must say>
  local output status=0
  output=$(bash "$checks/$1.sh" "$tree" 2>&1) || status=$?
  if [[ $status -eq 0 || $status -eq 77 || $output != *"$2"* ]]; then
    printf 'self-test: %s must fail with "%s", but status %s and:\n%s\n' "$1" "$2" "$status" "$output"
    failed=1
  fi
  clean
}

make
mv "$tree" "$scratch/made"
clean
for check in includes top_level headers readme documents; do passes "$check"; done

header include/limber/core/config.hpp '<limber/rule/sgd.hpp>'
catches includes 'core must not include <limber/rule/sgd.hpp>'
header include/limber/core/config.hpp '<zlib.h>'
catches includes '<zlib.h> is neither'
header include/limber/rule/sgd.hpp '<limber/fuse/host.hpp>'
catches includes 'rule must not include'
header include/limber/sync/exchange.hpp '<limber/optimizer.hpp>'
catches includes 'sync must not include <limber/optimizer.hpp>'
header include/limber/fuse/host.hpp '<limber/comm/mpi.hpp>'
catches includes 'fuse must not include'
header include/limber/optimizer.hpp '<limber/elastic/store.hpp>'
catches includes 'optimizer.hpp must not include'
header include/limber/fuse/impl/host.ipp '<limber/sync/exchange.hpp>'
catches includes 'fuse must not include <limber/sync/exchange.hpp>'
header include/limber/fuse/updater.hpp '<limber/fuse/host.hpp>'
header include/limber/fuse/impl/host.ipp '<limber/fuse/updater.hpp>'
catches includes 'which includes <limber/fuse/host.hpp>'
header include/limber/fuse/host.hpp '<omp.h>'
catches includes '<omp.h> is not met here'
header include/limber/fuse/host.hpp '<limber/impl/src.hpp>'
catches includes 'fuse must not include <limber/impl/src.hpp>'
header include/limber/sync/exchange.hpp '<mpi.h>'
catches includes '<mpi.h> is not met here'
header include/limber/core/config.hpp '<cuda_runtime.h>'
catches includes '<cuda_runtime.h> is not met here'
header include/limber/rule/sgd.hpp '"host.hpp"'
catches includes 'include <limber/...>, not'
header include/limber/misc/odd.hpp '<vector>'
catches includes 'no room "misc" is known'
header include/limber/cuda/odd.hpp '<vector>'
catches includes 'cuda/ holds limber/cuda/'
echo 'inline auto t0 = std::chrono::steady_clock::now();' >>"$tree/include/limber/rule/sgd.hpp"
catches includes 'reads real time'
echo 'inline auto t0 = std::chrono::steady_clock::now();' >>"$tree/include/limber/core/clock.hpp"
catches includes 'reads real time'

mkdir -p "$tree/src" && echo x >"$tree/src/x"
catches top_level 'src: not an entry'
echo 'int x;' | write include/limber/rule/sgd.hpp
catches top_level 'include/limber/rule/sgd.hpp:1: must be'
yes '//' 2>/dev/null | head -n 400 >>"$tree/include/limber/rule/sgd.hpp" || true
warns top_level 'more than 400 lines'
echo 'int x;' | write include/limber/fuse/impl/host.ipp
catches top_level 'include/limber/fuse/impl/host.ipp:1: must be'
printf '// see /%s/someone/file\n' home >>"$tree/include/limber/rule/sgd.hpp"
catches top_level "a path of somebody's machine"

header include/limber/rule/new.hpp '<vector>'
catches headers '+    limber/rule/new.hpp'
rm "$tree/include/limber/rule/sgd.hpp"
catches headers '-    limber/rule/sgd.hpp'
header include/limber/rule/impl/sgd.ipp '<vector>'
catches headers '+    limber/rule/impl/sgd.ipp'
sed -i '/host.ipp/d' "$tree/include/limber/impl/src.hpp"
catches headers 'does not include <limber/fuse/impl/host.ipp>'

sed -i 's/42/43/' "$tree/README.md"
catches readme 'int answer = 42;'
sed -i '/readme-end/d' "$tree/examples/quickstart.cpp"
catches readme 'unclosed'
sed -i '/readme-/d' "$tree/examples/quickstart.cpp"
catches readme 'nothing between'

echo 'and `include/limber/gone.hpp`' >>"$tree/README.md"
catches documents "'include/limber/gone.hpp' does not exist"
printf '```cpp\n#include <limber/gone.hpp>\n```\n' >>"$tree/README.md"
catches documents "no header 'limber/gone.hpp'"
echo '`ctest --preset gone`' >>"$tree/CONTRIBUTING.md"
catches documents "no preset 'gone'"
echo '`test/run -L gone`' >>"$tree/CONTRIBUTING.md"
catches documents "no label 'gone'"
echo '`cmake --build . --target gone`' >>"$tree/CONTRIBUTING.md"
catches documents "no target 'gone'"

status=0
bash "$checks/format.sh" "$tree" >/dev/null 2>&1 || status=$?
if [[ $status -ne 77 ]]; then
  passes format
  echo 'int   x ;' >>"$tree/include/limber/rule/sgd.hpp"
  catches format 'code should be clang-formatted'
  echo 'int   x ;' >>"$tree/include/limber/core/impl/clock.ipp"
  catches format 'code should be clang-formatted'
fi

exit $failed

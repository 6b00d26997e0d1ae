// SPDX-License-Identifier: Apache-2.0
// expect: limber: tensor: the memory is read-only
// only
// An optimizer writes its parameters.
#include <limber/core/tensor.hpp>

#include <vector>

int main() {
  std::vector<float> w(3), g(3);
  std::vector<float> const constant(3);
#ifdef CONTROL
  limber::tensor const t{"w", w, g};
#else
  limber::tensor const t{"w", constant, g};
#endif
  return static_cast<int>(t.value.length) - 3;
}

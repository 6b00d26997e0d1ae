// SPDX-License-Identifier: Apache-2.0
// expect: limber: tensor: the memory is a temporary that is gone after this line
// only
// A temporary vector is gone when the tensor is made: its views would dangle.
#include <limber/core/tensor.hpp>

#include <vector>

std::vector<float> weights() { return {1, 2, 3}; }

int main() {
  std::vector<float> w(3), g(3);
#ifdef CONTROL
  limber::tensor const t{"w", w, g};
#else
  limber::tensor const t{"w", weights(), g};
#endif
  return static_cast<int>(t.value.length) - 3;
}

// SPDX-License-Identifier: Apache-2.0
// expect: limber: tensor: the memory is not contiguous
// only
// std::vector<bool> holds no elements that have an address.
#include <limber/core/tensor.hpp>

#include <vector>

int main() {
  std::vector<float> w(3), g(3);
  std::vector<bool> bits(3);
#ifdef CONTROL
  limber::tensor const t{"w", w, g};
#else
  limber::tensor const t{"w", bits, g};
#endif
  return static_cast<int>(t.value.length) - 3;
}

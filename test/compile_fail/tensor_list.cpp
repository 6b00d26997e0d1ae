// SPDX-License-Identifier: Apache-2.0
// expect: limber: tensor: the memory is not contiguous
// only
// A list has its elements here and there.
#include <limber/core/tensor.hpp>

#include <list>
#include <vector>

int main() {
  std::vector<float> w(3), g(3);
  std::list<float> list(3);
#ifdef CONTROL
  limber::tensor const t{"w", w, g};
#else
  limber::tensor const t{"w", list, g};
#endif
  return static_cast<int>(t.value.length) - 3;
}

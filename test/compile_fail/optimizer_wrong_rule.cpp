// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the 2nd argument is no update rule
// only
// A type with slots alone, and a number.
#include "arguments.hpp"

struct momentum {
  static constexpr int slots = 1;
};

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  optimizer const opt{parameters, momentum{}, rate, strategy, comm};
  optimizer const number{parameters, 3, rate, strategy, comm};
#endif
}

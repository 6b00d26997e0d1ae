// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: rule and schedule are swapped
// only
// With and without options.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  optimizer const opt{parameters, rate, rule, strategy, comm};
  optimizer const more{parameters, rate, rule, strategy, comm, {.epoch_size = 3}};
#endif
}

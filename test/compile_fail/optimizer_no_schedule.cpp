// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the schedule is missing
// only
// The strategy is in its place.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  optimizer const opt{parameters, rule, strategy, comm};
  optimizer const more{parameters, rule, strategy, comm, {.epoch_size = 4}};
#endif
}

// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the strategy is missing
// only
// The communicator is in its place.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  optimizer const opt{parameters, rule, rate, comm};
  optimizer const more{parameters, rule, rate, comm, {.epoch_size = 4}};
#endif
}

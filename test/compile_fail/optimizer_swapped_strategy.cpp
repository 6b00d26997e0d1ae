// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: strategy and communicator are swapped, the strategy comes first
// only
// With and without options.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  optimizer const opt{parameters, rule, rate, comm, strategy};
  optimizer const more{parameters, rule, rate, comm, sync::allreduce{}, {.epoch_size = 3}};
#endif
}

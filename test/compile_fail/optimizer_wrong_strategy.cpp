// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the strategy, the argument before the communicator, is none
// only
// One without parts(), one whose parts() are none, and one whose parts() are not const.
#include "arguments.hpp"

struct of_nothing {
  int period;
};
struct of_a_number {
  int parts() const { return 1; }
};
struct of_allreduce {
  sync::exchange parts()
#ifdef CONTROL
      const
#endif
  {
    return sync::allreduce{}.parts();
  }
};

int main() {
  optimizer const opt{parameters, rule, rate, of_allreduce{}, comm};
#ifndef CONTROL
  optimizer const nothing{parameters, rule, rate, of_nothing{4}, comm};
  optimizer const number{parameters, rule, rate, of_a_number{}, comm, {.epoch_size = 3}};
#endif
}

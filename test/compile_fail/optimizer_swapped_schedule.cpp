// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: schedule and strategy are swapped, the schedule comes first
// only
// A number is no strategy.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  optimizer const opt{parameters, rule, strategy, rate, comm};
#endif
}

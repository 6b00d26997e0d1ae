// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: groups carry their rules, leave out the 2nd argument
// only
// There is no rule for all groups.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{groups(parameter_group{parameters, rule}), rate, strategy, comm};
#else
  optimizer const opt{groups(parameter_group{parameters, rule}), rule, rate, strategy, comm};
#endif
}

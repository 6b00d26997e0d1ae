// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the rule of a group is no update rule
// only
// Of groups(...) and of a list of groups.
#include "arguments.hpp"

struct momentum {
  double mu = 0.9;
};

int main() {
#ifdef CONTROL
  optimizer const opt{groups(parameter_group{parameters, rule}), rate, strategy, comm};
#else
  std::vector<parameter_group<momentum>> const list{{parameters, {}}};
  optimizer const opt{groups(parameter_group{parameters, momentum{}}), rate, strategy, comm};
  optimizer const of_a_list{list, rate, strategy, comm};
#endif
}

// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the communicator is missing
// only
// With and without options, of groups too.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  options o;
  std::vector<parameter_group<sgd>> const list{{parameters, rule}};
  optimizer const opt{parameters, rule, rate, strategy};
  optimizer const with_options{parameters, rule, rate, strategy, {.batch = per_worker{4}}};
  optimizer const with_named_options{parameters, rule, rate, strategy, o};
  optimizer const of_groups{groups(parameter_group{parameters, rule}), rate, strategy};
  optimizer const of_groups_with_options{
      groups(parameter_group{parameters, rule}), rate, strategy, {.epoch_size = 4}};
  optimizer const of_a_list{list, rate, strategy};
#endif
}

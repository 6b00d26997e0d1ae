// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the schedule, the argument before the strategy, is none
// only
// It is called with a progress, returns a number, and can be copied.
#include "arguments.hpp"

#include <memory>

int main() {
#ifdef CONTROL
  auto const schedule = [](progress const& p) { return 0.1 / static_cast<double>(1 + p.steps); };
  optimizer const opt{parameters, rule, schedule, strategy, comm};
#else
  auto const of_a_number = [](int step) { return 0.1 / step; };
  auto const text = [](progress const&) { return std::string("0.1"); };
  auto const owner = [base = std::make_unique<double>(0.1)](progress const&) { return *base; };
  optimizer const one{parameters, rule, of_a_number, strategy, comm};
  optimizer const two{parameters, rule, text, strategy, comm};
  optimizer const three{parameters, rule, owner, strategy, comm};
  optimizer const four{groups(parameter_group{parameters, rule}), of_a_number, strategy, comm};
#endif
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/schedule/step_decay.hpp>

namespace limber {

LIMBER_FN multi_step::multi_step(std::span<amount const> at, double by) : factor(by) {
  expects(at.size() <= capacity, "multi_step: milestones must number at most ", capacity, ", got ",
          at.size());
  detail::expects_at_least("multi_step", "factor", by);
  for (amount const a : at) {
    detail::expects_length("multi_step", "milestone", a);
    if (count == 0) in = a.in;
    expects(a.in == in, "multi_step: milestones must share one unit, got ", name_of(in), " and ",
            name_of(a.in));
    expects(count == 0 || a.value > milestones[count - 1], "multi_step: milestones must increase, got ",
            a.value, " after ", milestones[count == 0 ? 0 : count - 1]);
    milestones[count++] = a.value;
  }
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/plan.hpp>

#include <limits>

namespace limber {

namespace detail {

LIMBER_FN i64 world_of(std::string_view policy, batch_facts const& facts) {
  expects(facts.world >= 1, policy, ": world must be at least 1, got ", facts.world);
  return facts.world;
}

LIMBER_FN i64 checked_product(std::string_view policy, i64 a, i64 b) {
  expects(a <= std::numeric_limits<i64>::max() / b, policy, ": ", a, " x ", b, " samples do not fit 64 bits");
  return a * b;
}

LIMBER_FN void expects_known(std::string_view what, unit in, progress const& now) {
  expects(in != unit::epochs || now.epoch_size != 0, what, " counts epochs, but epoch_size was not given");
}

}  // namespace detail

LIMBER_FN bool is_due(amount every, progress const& then, progress const& now) {
  expects(math::finite(every.value) && every.value > 0, "replan_every must be finite and > 0, got ",
          every.value, " ", name_of(every.in));
  detail::expects_known("replan_every", every.in, now);
  return math::floor(now.in(every.in) / every.value) > math::floor(then.in(every.in) / every.value);
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/replan.hpp>

namespace limber {

namespace detail {
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

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/schedule/linear_scaling.hpp>

namespace limber::detail {

LIMBER_FN void expects_scaling(char const* schedule, double base_lr, double base_batch, amount warmup) {
  expects(!(base_lr != base_lr), schedule, ": base_lr was not given, or is not a number");
  expects_at_least_0(schedule, "base_lr", base_lr);
  expects_above_0(schedule, "base_batch", base_batch);
  expects_at_least_0(schedule, "warmup", warmup.value);
}

}  // namespace limber::detail

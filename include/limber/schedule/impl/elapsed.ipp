// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/schedule/elapsed.hpp>

namespace limber::detail {

LIMBER_FN void same_unit::operator()(amount other) const {
  expects(other.in == in, "sequence: pieces must share one unit, got ", name_of(in), " and ", other.value,
          " ", name_of(other.in));
}

LIMBER_FN checked expects_length(char const* schedule, char const* argument, amount a, bool may_be_0) {
  expects(a.in != not_given.in, schedule, ": ", argument, " was not given");
  expects(math::finite(a.value) && (a.value > 0 || (may_be_0 && a.value == 0)), schedule, ": ", argument,
          " must be finite and ", may_be_0 ? ">= 0" : "> 0", ", got ", a.value, " ", name_of(a.in));
  return {};
}

LIMBER_FN checked expects_at_least(char const* schedule, char const* argument, double x, double least) {
  expects(math::finite(x) && x >= least, schedule, ": ", argument, " must be finite and >= ", least, ", got ",
          x);
  return {};
}

LIMBER_FN checked expects_above_0(char const* schedule, char const* argument, double x) {
  expects(math::finite(x) && x > 0, schedule, ": ", argument, " must be finite and > 0, got ", x);
  return {};
}

LIMBER_FN checked expects_0_to_1(char const* schedule, char const* argument, double x) {
  expects(x >= 0 && x <= 1, schedule, ": ", argument, " must lie in [0, 1], got ", x);
  return {};
}

LIMBER_FN checked expects_scaling(char const* schedule, double base_lr, double base_batch, amount warmup) {
  expects(!(base_lr != base_lr), schedule, ": base_lr was not given, or is not a number");
  expects_at_least(schedule, "base_lr", base_lr);
  expects_above_0(schedule, "base_batch", base_batch);
  return expects_at_least(schedule, "warmup", warmup.value);
}

}  // namespace limber::detail

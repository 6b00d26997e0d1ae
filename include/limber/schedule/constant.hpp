// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A rate that does not change.

#include <limber/schedule/elapsed.hpp>

namespace limber {

/// η(t) = value. No end: `lasting(5_epochs, 0.1)` makes a piece of it, a constant warm-up for instance.
///
/// @throws std::invalid_argument if value is negative, infinite or NaN
struct constant {
  double value;

  /// A number is a schedule.
  constant(double rate) : value(rate) { detail::expects_at_least("constant", "value", rate); }

  [[nodiscard]] LIMBER_HD double operator()(progress const&) const noexcept { return value; }
};

/// The rate does not follow the batch.
using no_scaling = constant;

namespace detail {
// A schedule stands for itself, a number for a constant.
template <schedule S>
[[nodiscard]] S as_schedule(S s) {
  return s;
}
[[nodiscard]] inline constant as_schedule(double value) { return constant(value); }
}  // namespace detail

}  // namespace limber

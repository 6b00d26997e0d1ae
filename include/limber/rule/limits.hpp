// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Ranges of hyper-parameters, and how a rule says that one is out of range.

#include <limber/core/error.hpp>
#include <limber/core/math.hpp>

#include <limits>

namespace limber::detail {

/// x in [0, 1): momentum, β, decay of an average.
/// @throws std::invalid_argument naming rule, argument and value; NaN is out of every range
inline void expects_fraction(char const* rule, char const* argument, double x) {
  expects(x >= 0 && x < 1, rule, ": ", argument, " must lie in [0, 1), got ", x);
}

/// x ≥ 0 and finite: weight decay.
/// @throws std::invalid_argument naming rule, argument and value
inline void expects_not_negative(char const* rule, char const* argument, double x) {
  expects(x >= 0 && math::finite(x), rule, ": ", argument, " must be finite and >= 0, got ", x);
}

/// x > 0, and not rounded to 0 or infinity when it becomes a float: ε, trust coefficients.
/// @throws std::invalid_argument naming rule, argument and value
inline void expects_positive(char const* rule, char const* argument, double x) {
  using float_limits = std::numeric_limits<float>;
  bool const ok = x >= double{float_limits::min()} && x <= double{float_limits::max()};
  expects(ok, rule, ": ", argument, " must be > 0 and in the range of float, got ", x);
}

}  // namespace limber::detail

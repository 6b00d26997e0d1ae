// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What rules remember of past values: exponential averages and sums of squares, kept finite.

#include <limber/core/math.hpp>

#include <limits>

namespace limber {

namespace detail {
// A variable, because device code may read a constexpr variable but not call a host function.
template <class T>
inline constexpr T largest_finite = std::numeric_limits<T>::max();
}  // namespace detail

/// The weights of an exponential average, both rounded from double.
///
/// Choices  1 − β is not computed in T: float(0.999) is off by 1e-8, which is 1e-5 of 1 − β.
template <class T>
struct average_weights {
  T old;    ///< β
  T fresh;  ///< 1 − β
};

/// The weights for β. @pre 0 ≤ β < 1
template <class T>
[[nodiscard]] LIMBER_HD inline average_weights<T> average_of(double beta) noexcept {
  return {static_cast<T>(beta), static_cast<T>(1 - beta)};
}

/// β·old + (1 − β)·fresh.
///
/// Choices  starts from the value with the larger weight and adds the smaller share of the
///          difference: exact for old = fresh and for β = 0, and rounded about once elsewhere.
template <class T>
[[nodiscard]] LIMBER_HD inline T moving_average(average_weights<T> const& w, T old, T fresh) noexcept {
  // Operands are chosen, not results: a branch around two lerps would keep the loop from vectorising.
  bool const mostly_old = math::less(w.fresh, w.old);
  T const from = mostly_old ? old : fresh, to = mostly_old ? fresh : old;
  return math::lerp(from, to, mostly_old ? w.fresh : w.old);
}

/// x ≥ 0, or the largest finite T when x has overflowed.
///
/// A float gradient above 1.8e19 is finite and its square is not. An infinite sum of squares would
/// stop its element for ever; the largest finite number slows it down for a while.
template <class T>
[[nodiscard]] LIMBER_HD inline T limited(T x) noexcept {
  return math::min(x, detail::largest_finite<T>);
}

}  // namespace limber

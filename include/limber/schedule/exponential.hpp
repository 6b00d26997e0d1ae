// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Exponential decay.

#include <limber/schedule/elapsed.hpp>

namespace limber {

/// Multiplies smoothly by `factor` per period, without end.
///
///     η(t) = factor^(t / every)
///
/// @throws std::invalid_argument unless every > 0, factor ≥ 0, and both are finite
struct exponential {
  amount every = detail::not_given;  ///< the period
  double factor = 0.95;              ///< below 1 the rate falls, above it grows
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return math::pow(factor, detail::elapsed(p, every.in) / every.value);
  }

  template <class F>
  void each_amount(F f) const {
    f(every);
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_period("exponential", "every", every);
    detail::expects_at_least_0("exponential", "factor", factor);
    return {};
  }
};

}  // namespace limber

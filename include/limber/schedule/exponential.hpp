// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Exponential decay.

#include <limber/schedule/elapsed.hpp>

#include <cmath>

namespace limber {

/// Decays smoothly by `factor` per period, without end.
///
///     η(t) = factor^(t / every)
///
/// @throws std::invalid_argument unless every > 0 and factor lies in [0, 1]
struct exponential {
  amount every{};        ///< the period
  double factor = 0.95;  ///< in [0, 1]
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return std::pow(factor, detail::elapsed(p, every.in) / every.value);
  }

  template <class F>
  void each_amount(F f) const {
    f(every);
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_length("exponential", "every", every);
    detail::expects_0_to_1("exponential", "factor", factor);
    return {};
  }
};

static_assert(device_schedule<exponential>);

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Polynomial decay; with power 1, linear decay.

#include <limber/schedule/elapsed.hpp>

namespace limber {

/// Falls from 1 to `to`, then stays there.
///
///     η(t) = to + (1 − to) (1 − min(1, t / T))^power
///
/// Choices  length 0: `to` at once.
/// @throws std::invalid_argument unless length ≥ 0, power > 0, both are finite, and to lies in [0, 1]
struct polynomial {
  amount length = detail::not_given;
  double power = 1;  ///< 1 is linear; LARS uses 2
  double to = 0;     ///< the last rate, in [0, 1]
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const left = 1 - detail::fraction(p, length);
    return detail::between(to, 1, power == 1 ? left : math::pow(left, power));
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_length("polynomial", "length", length);
    detail::expects_above_0("polynomial", "power", power);
    detail::expects_0_to_1("polynomial", "to", to);
    return {};
  }
};

}  // namespace limber

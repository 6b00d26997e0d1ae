// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Decay by a power of progress: polynomial (with power 1 linear), and inverse square root.

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
  detail::checked valid{detail::expects_length("polynomial", "length", length),
                        detail::expects_above_0("polynomial", "power", power),
                        detail::expects_0_to_1("polynomial", "to", to)};

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const left = 1 - detail::fraction(p, length);
    return detail::between(to, 1, power == 1 ? left : math::pow(left, power));
  }
};

/// Falls with the square root of progress, without end.
///
///     η(t) = 1 / √(1 + t / T)
///
/// Choices  starts at 1, so that `warmup(T) | inverse_sqrt(T)` is the Transformer's schedule
///          min(t/T, √(T/t)) without a jump or a division by t = 0.
/// Paper    Vaswani et al., Attention Is All You Need, arXiv:1706.03762, eq. 3.
/// @throws std::invalid_argument unless timescale > 0
struct inverse_sqrt {
  amount timescale;  ///< T: after three of these the rate is one half

  explicit inverse_sqrt(amount over) : timescale(over) {
    detail::expects_length("inverse_sqrt", "timescale", over, false);
  }

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return 1 / math::sqrt(1 + detail::elapsed(p, timescale.in) / timescale.value);
  }

  void each_amount(auto f) const { f(timescale); }
};

}  // namespace limber

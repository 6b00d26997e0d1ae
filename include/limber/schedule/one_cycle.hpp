// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The one-cycle policy.

#include <limber/schedule/cosine.hpp>

namespace limber {

/// Rises along a cosine wave from `from` to 1, then falls to `to`.
///
///     x = min(1, t / T)
///     η(t) = from + (1 − from) (1 − cos(π x / rise)) / 2               x < rise
///     η(t) = to + (1 − to) (1 + cos(π (x − rise) / (1 − rise))) / 2    otherwise
///
/// Choices  defaults as in torch.optim.lr_scheduler.OneCycleLR (peak/25, then peak/250,000), but the peak
///          is at rise · T and the end at T, not one step before each. Momentum is the rule's business.
///          Length 0: `to` at once.
/// Paper    Smith and Topin, Super-Convergence, arXiv:1708.07120.
/// @throws std::invalid_argument unless length ≥ 0 and finite, and from, to and rise lie in [0, 1]
struct one_cycle {
  amount length = detail::not_given;
  double rise = 0.3;   ///< part of the length that rises, in [0, 1]
  double from = 0.04;  ///< the first rate, in [0, 1]
  double to = 4e-6;    ///< the last rate, in [0, 1]
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const x = detail::fraction(p, length);
    if (!(x >= rise)) return detail::between(from, 1, detail::half_wave(1 - x / rise));
    return detail::between(to, 1, detail::half_wave(rise < 1 ? (x - rise) / (1 - rise) : 1));
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_length("one_cycle", "length", length);
    detail::expects_0_to_1("one_cycle", "rise", rise);
    detail::expects_0_to_1("one_cycle", "from", from);
    detail::expects_0_to_1("one_cycle", "to", to);
    return {};
  }
};

}  // namespace limber

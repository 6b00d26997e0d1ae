// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Inverse square root decay.

#include <limber/schedule/elapsed.hpp>

namespace limber {

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
    detail::expects_period("inverse_sqrt", "timescale", over);
  }

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return 1 / math::sqrt(1 + detail::elapsed(p, timescale.in) / timescale.value);
  }

  template <class F>
  void each_amount(F f) const {
    f(timescale);
  }
};

}  // namespace limber

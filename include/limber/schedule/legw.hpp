// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// LEGW: square root scaling with a warm-up whose length grows with the batch.

#include <limber/schedule/linear_scaling.hpp>

namespace limber {

/// Linear-epoch gradual warm-up: k times the batch warms up for k times the epochs to √k times the rate.
///
///     η(p) = η₀ √k min(1, t / (k T))      k = B_eff / B₀
///
/// Units    T in epochs or samples; in steps the warm-up of this method does not grow.
/// Choices  the paper's batch is constant. When it grows before k T the warm-up gets longer, and the rate
///          falls to η₀ t / (√k T) with the ramp; when it grows later than that only √k is felt.
/// Paper    You et al., Large-Batch Training for LSTM and Beyond, arXiv:1901.08137.
/// @throws std::invalid_argument unless base_lr ≥ 0, base_batch > 0, warmup ≥ 0, all are finite, and a
/// warm-up
///         is in epochs or samples
struct legw {
  double base_lr = detail::no_number;  ///< η₀, the rate at the base batch
  double base_batch = 0;               ///< B₀, in samples
  amount warmup{0, unit::epochs};      ///< T, warm-up at the base batch; 0 is no warm-up
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const k = detail::growth(p, base_batch);
    return math::mul(base_lr, math::mul(math::sqrt(k), detail::fraction(p, {warmup.value * k, warmup.in})));
  }

  template <class F>
  void each_amount(F f) const {
    if (warmup.value > 0) f(warmup);
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_scaling("legw", base_lr, base_batch, warmup);
    expects(warmup.in != unit::steps || warmup.value == 0, "legw: warmup must be in epochs or samples, got ",
            warmup.value, " steps");
    return {};
  }
};

}  // namespace limber

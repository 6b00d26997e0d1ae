// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Square root scaling of the rate with the batch, with gradual warm-up.

#include <limber/schedule/linear_scaling.hpp>

namespace limber {

/// The rate grows with the square root of the batch, which keeps the variance of an update; the usual
/// choice for Adam and LAMB.
///
///     η(p) = η₀ (1 + (√k − 1) min(1, t / T))      k = B_eff / B₀
///
/// Units    as `linear_scaling`.
/// Paper    Krizhevsky, One weird trick for parallelizing convolutional neural networks,
///          arXiv:1404.5997, §5; Hoffer et al., Train longer, generalize better, arXiv:1705.08741.
/// @throws std::invalid_argument unless base_lr ≥ 0, base_batch > 0, warmup ≥ 0, and all are finite
struct sqrt_scaling {
  double base_lr = detail::no_number;  ///< η₀, the rate at the base batch
  double base_batch = 0;               ///< B₀, in samples
  amount warmup{};                     ///< T; 0 is no warm-up
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const root = math::sqrt(detail::growth(p, base_batch));
    double const done = detail::fraction(p, warmup);
    return math::mul(base_lr, done >= 1 ? root : detail::between(1, root, done));
  }

  template <class F>
  void each_amount(F f) const {
    if (warmup.value > 0) f(warmup);
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_scaling("sqrt_scaling", base_lr, base_batch, warmup);
    return {};
  }
};

}  // namespace limber

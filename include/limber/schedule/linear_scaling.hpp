// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Linear scaling of the rate with the batch, with gradual warm-up.

#include <limber/schedule/elapsed.hpp>

namespace limber {

namespace detail {
/// What scalings have in common: the batch relative to the base batch, ramped.
[[nodiscard]] LIMBER_HD inline double growth(progress const& p, double base_batch) noexcept {
  return math::div(p.effective_batch(), base_batch);
}

/// @throws std::invalid_argument naming schedule, argument and value
void expects_scaling(char const* schedule, double base_lr, double base_batch, amount warmup);
}  // namespace detail

/// The rate grows in proportion to the batch; over the warm-up it rises from the unscaled rate.
///
///     η(p) = η₀ (1 + (k − 1) min(1, t / T))      k = B_eff / B₀
///
/// Units    B_eff is the planned batch in samples, ramped after a change of plan: never the samples that
///          one step happened to count, so a short last batch does not change the rate.
/// State    none; the ramp is part of the progress. A resize during the warm-up changes its target only.
/// Choices  the warm-up starts at η₀, as the paper's does; `* warmup(T)` starts at 0.
/// Paper    Goyal et al., Accurate, Large Minibatch SGD, arXiv:1706.02677, §2.1 and §2.2.
/// @throws std::invalid_argument unless base_lr ≥ 0, base_batch > 0, warmup ≥ 0, and all are finite
struct linear_scaling {
  double base_lr = detail::no_number;  ///< η₀, the rate at the base batch
  double base_batch = 0;               ///< B₀, in samples
  amount warmup{};                     ///< T; 0 is no warm-up
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const k = detail::growth(p, base_batch);
    // Without this branch the full rate would differ from η₀ k by a rounding.
    double const done = detail::fraction(p, warmup);
    return math::mul(base_lr, done >= 1 ? k : detail::between(1, k, done));
  }

  template <class F>
  void each_amount(F f) const {
    if (warmup.value > 0) f(warmup);
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_scaling("linear_scaling", base_lr, base_batch, warmup);
    return {};
  }
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/schedule/impl/linear_scaling.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// AdaScale: the rate grows with the batch as far as gradient noise lets it.

#include <limber/schedule/linear_scaling.hpp>

namespace limber {

/// The rate times the gain r of a larger batch, from measured gradient noise.
///
///     η(p) = η₀ r      r = (V/B₀ + G) / (V/B_eff + G) ∈ [1, B_eff/B₀]
///
/// State    `progress::noise`, the running estimates of V (variance of a sample's gradient) and G (squared
///          true gradient); r = 1 while nothing is known or the batch is not above B₀.
/// Choices  the paper counts scale-invariant iterations τ = Σ r and indexes its decay by τ. Progress has no
///          such counter: a schedule that multiplies this one is indexed by steps, samples or epochs.
///          No warm-up: r starts at 1 by itself.
/// Paper    Johnson et al., AdaScale SGD, ICML 2020, arXiv:2007.05105.
/// @throws std::invalid_argument unless base_lr > 0 and base_batch > 0
struct adascale {
  double base_lr = 0;     ///< η₀, the rate at the base batch
  double base_batch = 0;  ///< B₀, in samples
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return math::mul(base_lr, p.noise.gain(p.effective_batch(), base_batch));
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_scaling("adascale", base_lr, base_batch, {});
    return {};
  }
};

static_assert(device_schedule<adascale>);

}  // namespace limber

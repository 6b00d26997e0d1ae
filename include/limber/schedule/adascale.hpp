// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// AdaScale: the rate grows with the batch as far as gradient noise lets it, and so does the clock.

#include <limber/schedule/elapsed.hpp>
#include <limber/schedule/gain.hpp>

#include <utility>

namespace limber {

template <schedule S>
struct base_clock;

/// The rate times the gain r of a larger batch, from measured gradient noise.
///
///     η(p) = η₀ r      r = (V/B₀ + G) / (V/B_eff + G) ∈ [1, B_eff/B₀]
///
/// State    `progress::noise`, the running estimates of V (variance of a sample's gradient) and G (squared
///          true gradient); r = 1 while nothing is known or the batch is not above B₀.
/// Choices  the paper runs its decay on the clock τ = Σ r, steps at the base batch: `over` does. A schedule
///          that multiplies this one runs on steps, samples or epochs as they are.
///          No warm-up: r starts at 1 by itself.
/// Paper    Johnson et al., AdaScale SGD, ICML 2020, arXiv:2007.05105.
/// @throws std::invalid_argument unless base_lr ≥ 0, base_batch > 0, and both are finite
struct adascale {
  double base_lr = detail::no_number;  ///< η₀, the rate at the base batch
  double base_batch = 0;               ///< B₀, in samples
  detail::checked valid = detail::expects_scaling("adascale", base_lr, base_batch, {});

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return math::mul(base_lr, gain(p));
  }

  /// r, from what is known before the update.
  [[nodiscard]] LIMBER_HD double gain(progress const& p) const noexcept {
    return p.noise.gain(p.effective_batch(), base_batch);
  }

  /// r times a schedule that sees the run as one worker at the base batch would make it.
  ///
  ///     adascale{.base_lr = 0.1, .base_batch = 128}.over(step_decay{.every = 30_epochs, .factor = 0.1})
  template <schedule S>
  [[nodiscard]] base_clock<S> over(S part) const {
    return {*this, std::move(part)};
  }
};

/// AdaScale with its own clock. Made by `adascale::over`.
///
///     η_t = η₀ r_t lr(⌊τ_t⌋);   τ_{t+1} = τ_t + r_t
///
/// Units    what `part` measures in steps are base-batch steps, ⌊τ⌋; a sample is 1/B₀ of one, and the batch
///          is B₀ all along. A run is over when `progress::base_steps` reaches what one worker would take.
/// State    `progress::base_steps`, moved by the optimizer by the gain it stepped with.
/// Choices  τ counts from the start of training also where this stands in a sequence; it has no end that
///          something could follow, because nobody knows in steps when that will be.
template <schedule S>
struct base_clock {
  adascale scale;
  S part;

  LIMBER_NO_EXEC_CHECK
  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const {
    return math::mul(scale(p), static_cast<double>(part(at_base(p))));
  }

  [[nodiscard]] LIMBER_HD double gain(progress const& p) const noexcept { return scale.gain(p); }

  template <class F>
  void each_amount(F f) const {
    if constexpr (!requires { F::on_this_clock; }) detail::each_amount(part, f);
  }

 private:
  [[nodiscard]] LIMBER_HD progress at_base(progress p) const noexcept {
    double const steps = math::floor(p.base_steps);
    p.steps = whole(steps);
    p.samples = whole(math::mul(steps, scale.base_batch));
    p.batch = {scale.base_batch, scale.base_batch, 0, 0};
    return p;
  }
  [[nodiscard]] LIMBER_HD static i64 whole(double x) noexcept {
    return x > 0 ? (x < 0x1p62 ? static_cast<i64>(x) : i64{1} << 62) : 0;
  }
};

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Rates that follow the batch: linear and square root scaling, Dynamic SGD, LEGW, AdaScale.

#include <limber/schedule/elapsed.hpp>
#include <limber/schedule/gain.hpp>

#include <cstdint>
#include <utility>

namespace limber {

namespace detail {
enum class batch_scaling : std::uint8_t { linear, root, legw };

/// A rate that follows the batch.
template <batch_scaling how>
struct scaling {
  double base_lr = no_number;  ///< η₀, the rate at the base batch
  double base_batch = 0;       ///< B₀, in samples
  amount warmup{0, how == batch_scaling::legw ? unit::epochs : unit::steps};  ///< T; 0 is no warm-up
  checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const k = math::div(p.effective_batch(), base_batch);  // ramped
    double const target = how == batch_scaling::linear ? k : math::sqrt(k);
    if (how == batch_scaling::legw)
      return math::mul(base_lr, math::mul(target, fraction(p, {warmup.value * k, warmup.in})));
    // Without this branch the full rate would differ from η₀ k by a rounding.
    double const done = fraction(p, warmup);
    return math::mul(base_lr, done >= 1 ? target : between(1, target, done));
  }

  void each_amount(auto f) const {
    if (warmup.value > 0) f(warmup);
  }

 private:
  [[nodiscard]] checked check() const {
    constexpr char const* names[] = {"linear_scaling", "sqrt_scaling", "legw"};
    expects_scaling(names[static_cast<int>(how)], base_lr, base_batch, warmup);
    expects(how != batch_scaling::legw || warmup.in != unit::steps || warmup.value == 0,
            "legw: warmup must be in epochs or samples, got ", warmup.value, " steps");
    return {};
  }
};
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
using linear_scaling = detail::scaling<detail::batch_scaling::linear>;

/// The rate of Dynamic SGD: linear scaling that follows a new batch gradually (momentum compensation).
///
///     k = B_new / B_old       T = 8 k
///     η_j = η_old (1 + (k − 1) j / T)     j = 1 … T updates after the change
///
/// At a growth of the batch the momentum still holds gradients averaged over fewer samples, and a rate
/// that is multiplied by k at once multiplies the variance of the update by k².
/// State    the ramp in `progress::batch`: a change of plan re-arms it (`ramp::rearmed`), from the batch
///          that is effective then; it is saved with the progress. Nothing here.
/// Choices  `ramp_rule` holds T and says what happens when the batch shrinks (at once). A schedule that
///          multiplies this one goes on during a ramp. Meant for the outside form of momentum; the inside
///          form needs its momentum correction besides, once and not instead.
/// Paper    Lin et al., Dynamic Mini-batch SGD for Elastic Distributed Training, arXiv:1904.12043.
/// @throws std::invalid_argument unless base_lr ≥ 0, base_batch > 0, warmup ≥ 0, and all are finite
[[nodiscard]] inline linear_scaling dynamic_sgd(double base_lr, double base_batch, amount warmup = {}) {
  return {.base_lr = base_lr, .base_batch = base_batch, .warmup = warmup};
}

/// The rate grows with the square root of the batch, which keeps the variance of an update; the usual
/// choice for Adam and LAMB.
///
///     η(p) = η₀ (1 + (√k − 1) min(1, t / T))      k = B_eff / B₀
///
/// Units    as `linear_scaling`.
/// Paper    Krizhevsky, One weird trick for parallelizing convolutional neural networks,
///          arXiv:1404.5997, §5; Hoffer et al., Train longer, generalize better, arXiv:1705.08741.
/// @throws std::invalid_argument unless base_lr ≥ 0, base_batch > 0, warmup ≥ 0, and all are finite
using sqrt_scaling = detail::scaling<detail::batch_scaling::root>;

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
using legw = detail::scaling<detail::batch_scaling::legw>;

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

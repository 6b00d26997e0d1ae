// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Where training stands: one POD, the same bytes on host, device and in a checkpoint.

#include <limber/core/config.hpp>
#include <limber/core/math.hpp>
#include <limber/core/noise.hpp>
#include <limber/core/units.hpp>

#include <type_traits>

namespace limber {

/// How the batch that the rate believes in follows the planned batch after a change of plan.
///
///     T = steps_per_growth · k          k = B_new / B_effective
///     B_eff(j) = B_old + (B_new − B_old) · j / T     j = 1 … T
///
/// Units    T in updates; j counts from 1 (the first update at the new batch already moves).
/// Choices  The paper's notes give both T = 8 and T = 8k; T = 8k is the default because a fixed 8
///          leaves a spike (test/schedule/noisy_quadratic_test.cpp). A decrease is applied at once:
///          in the outside form of momentum it is safe, and a slow decrease is not.
/// Paper    Lin et al., Dynamic Mini-batch SGD for Elastic Distributed Training, arXiv:1904.12043.
struct ramp_rule {
  double steps_per_growth = 8;  ///< T = this · k; 0 applies every change at once
  bool proportional = true;     ///< false: T = steps_per_growth whatever k is
  bool on_decrease = false;     ///< also ramp down
};

/// The rule that changes the rate together with the batch, without a ramp.
inline constexpr ramp_rule immediate{.steps_per_growth = 0};

/// The effective batch as a pure function of the step: linear from `from` to `to`, then constant.
///
/// Only a change of plan writes a new ramp (`rearmed`); it is saved with the progress.
struct ramp {
  double from = 1;  ///< effective batch before the change
  double to = 1;    ///< planned batch
  i64 begin = 0;    ///< update at which the change took effect
  i64 length = 0;   ///< updates it takes; 0 = at once

  /// The effective batch of update number `step` (counting from 0).
  [[nodiscard]] LIMBER_HD double at(i64 step) const noexcept {
    if (step < begin) return from;
    i64 const before = step - begin;  // j − 1, which cannot overflow
    if (before >= length - 1) return to;
    double const share = static_cast<double>(before + 1) / static_cast<double>(length);
    return math::fma(math::sub(to, from), share, from);
  }

  [[nodiscard]] LIMBER_HD bool running(i64 step) const noexcept {
    return step >= begin && step - begin < length - 1;
  }

  /// The ramp after the plan changed to `target` samples just before update `step`.
  ///
  /// Starts from the batch that was effective at the update before, so that a change during a ramp
  /// makes no jump. @pre target > 0
  [[nodiscard]] LIMBER_HD ramp rearmed(i64 step, double target, ramp_rule rule) const noexcept {
    double const now = step > 0 ? at(step - 1) : from;
    double const k = target / now;
    // Two roundings on every device: a fused multiply-add could give a ramp of another length.
    double const wanted = rule.proportional ? math::mul(rule.steps_per_growth, k) : rule.steps_per_growth;
    bool const slow = k > 1 || (k < 1 && rule.on_decrease);
    return {now, target, step, slow ? static_cast<i64>(math::add(wanted, 0.5)) : 0};
  }
};

/// All control state, agreed by all ranks.
///
/// Three counters that look alike and are not: `calls` of `step()` always advance and alone decide
/// collectives; `steps` and `samples` are what was applied and what schedules see.
struct progress {
  i64 calls = 0;             ///< calls of optimizer.step(), skipped ones included
  i64 steps = 0;             ///< updates applied
  i64 samples = 0;           ///< samples in the applied updates
  i64 epoch_size = 1;        ///< samples an epoch has; 0 if unknown
  ramp batch{};              ///< the batch the rate believes in
  noise_statistics noise{};  ///< gradient noise, for AdaScale and noise-scale policies
  double gain = 1;           ///< r, base-batch steps that the coming update is worth: said by the schedule
  double base_steps = 0;     ///< τ = Σ r over the updates applied; the same as `steps` while r is 1

  /// The planned batch, ramped. Never the batch that happened to be counted in a step.
  [[nodiscard]] LIMBER_HD double effective_batch() const noexcept { return batch.at(steps); }

  /// The planned batch.
  [[nodiscard]] LIMBER_HD double planned_batch() const noexcept { return batch.to; }

  /// Counts n applied updates, at the gain that was known before them.
  LIMBER_HD void count_steps(i64 n) noexcept {
    steps += n;
    base_steps = math::fma(gain, static_cast<double>(n), base_steps);
  }

  /// Progress in unit `u`; epochs are fractional, and NaN if `epoch_size` is 0.
  [[nodiscard]] LIMBER_HD double in(unit u) const noexcept {
    switch (u) {
      case unit::steps: return static_cast<double>(steps);
      case unit::samples: return static_cast<double>(samples);
      case unit::epochs:  // 0 / 0 where nobody knows
        return static_cast<double>(epoch_size != 0 ? samples : 0) / static_cast<double>(epoch_size);
    }
    return 0;
  }
};

static_assert(std::is_trivially_copyable_v<progress> && std::is_standard_layout_v<progress>);

}  // namespace limber

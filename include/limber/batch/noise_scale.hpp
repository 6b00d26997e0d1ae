// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A global batch that follows the measured gradient noise.

#include <limber/batch/dbs.hpp>
#include <limber/batch/fixed.hpp>
#include <limber/batch/plan.hpp>
#include <limber/batch/replan.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace limber {

/// The simple noise scale in samples: the batch at which noise and true gradient are equally strong.
///
///     B_simple = tr(Σ) / |G|² = V / G
///
/// V and G are the smoothed estimates (of unequal contributions, too) that `noise_statistics` keeps, so
/// this is a ratio of means, never a mean of ratios.
/// Choices  0 where no variance is seen (V ≤ 0), infinite where no gradient stands out of it (G ≤ 0 < V).
/// Paper    McCandlish, Kaplan, Amodei et al., An Empirical Model of Large-Batch Training,
///          arXiv:1812.06162.
[[nodiscard]] inline double simple_noise_scale(noise_statistics const& noise) noexcept {
  if (!(noise.variance > 0)) return 0;
  return noise.square > 0 ? noise.variance / noise.square : std::numeric_limits<double>::infinity();
}

/// How a global batch is dealt to the ranks.
enum class sharing { equal, by_speed };

/// The global batch is the simple noise scale, on a coarse scale of sizes.
///
///     Lₖ = min(B_min sᵏ, B_max)                          the sizes that are used
///     B stays                                            while B / s ≤ B_simple ≤ B s
///     B ← the Lₖ nearest to B_simple, by ratio           otherwise, or where B_simple is outside
///                                                        [B_min, B_max]; at most growth · B
///
/// A size that was just chosen lies within a factor √s of B_simple. To move it again, the estimate must
/// leave it by a factor s (or the range altogether): noise below a factor √s does not move it to and fro.
///
/// Units    samples per update, over all workers.
/// State    none but the plan in force; without one, B starts from B_min.
/// Choices  Only growth is limited: a smaller batch is safe at once. B_simple is a batch for today's
///          gradient, it grows as training goes on; the paper chooses no policy.
///          `sharing::by_speed` deals as `dbs` does, with its `smoothing`.
/// Paper    McCandlish et al., arXiv:1812.06162.
struct noise_scale {
  i64 min_batch = 0;                ///< B_min ≥ number of workers
  i64 max_batch = 0;                ///< B_max, in [B_min, 2⁵³]
  double growth = 2;                ///< largest growth per plan, ≥ step
  double step = 2;                  ///< s, ratio of neighbouring sizes, ≥ 1.01
  i64 min_estimates = 10;           ///< B stays while fewer estimates of the noise were folded in
  sharing share = sharing::equal;   ///< equal shares, or in proportion to speeds
  double smoothing = 0;             ///< of the speeds, as in `dbs`
  amount replan_every = epochs(1);  ///< when to look again

  /// @throws std::invalid_argument if there are no workers, a member is out of range, or the smallest batch
  ///         does not give everybody a sample
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const {
    check(detail::world_of("noise_scale", facts));
    i64 const total = batch_at(facts);
    return share == sharing::equal ? fixed{total}(facts)
                                   : dbs{.batch = total, .smoothing = smoothing, .caps = {}}(facts);
  }

 private:
  [[nodiscard]] i64 batch_at(batch_facts const& facts) const {
    i64 const now = facts.current == nullptr ? min_batch : facts.current->total;
    i64 const kept = std::clamp(now, min_batch, max_batch);
    if (facts.now.noise.count < std::max(min_estimates, i64{1})) return kept;
    double const wanted = std::clamp(simple_noise_scale(facts.now.noise), static_cast<double>(min_batch),
                                     static_cast<double>(max_batch));
    auto const size = static_cast<double>(kept);
    if (wanted <= size * step && wanted >= size / step && !at_the_end(wanted)) return kept;
    // The half: sizes are rounded, and one that was rounded down must not hold the next one back.
    return nearest(wanted, growth * (size + 0.5));
  }

  // The ends of the range are sizes that B may always go to: beyond them no noise is seen.
  [[nodiscard]] bool at_the_end(double wanted) const {
    return wanted == static_cast<double>(min_batch) || wanted == static_cast<double>(max_batch);
  }

  // The size nearest to `wanted` by ratio, and not above `most`. Products alone, no logarithms: the same
  // on every machine.
  [[nodiscard]] i64 nearest(double wanted, double most) const {
    auto const top = static_cast<double>(max_batch);
    double level = static_cast<double>(min_batch);
    while (level < top) {
      double const next = std::min(level * step, top);
      if (next > most || wanted / level < next / wanted) break;
      level = next;
    }
    return std::clamp(static_cast<i64>(math::add(level, 0.5)), min_batch, max_batch);
  }

  void check(i64 world) const {
    expects(min_batch >= world, "noise_scale: min_batch ", min_batch, " is smaller than ", world, " workers");
    expects(max_batch >= min_batch && max_batch <= i64{1} << 53, "noise_scale: max_batch must lie in [",
            min_batch, ", 2^53], got ", max_batch);
    expects(math::finite(step) && step >= 1.01, "noise_scale: step must be finite and >= 1.01, got ", step);
    expects(math::finite(growth) && growth >= step, "noise_scale: growth must be finite and >= step ", step,
            ", got ", growth);
    expects(min_estimates >= 0, "noise_scale: min_estimates must not be negative, got ", min_estimates);
    expects(smoothing >= 0 && smoothing < 1, "noise_scale: smoothing must lie in [0, 1), got ", smoothing);
  }
};

static_assert(batch_policy<noise_scale> && replans<noise_scale>);

}  // namespace limber

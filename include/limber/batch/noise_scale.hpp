// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A global batch that follows the measured gradient noise.

#include <limber/batch/plan.hpp>

#include <limits>

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
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/noise_scale.ipp>
#endif

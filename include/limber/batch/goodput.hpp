// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The global batch that learns most per second, from given costs and measured noise.

#include <limber/batch/plan.hpp>

#include <limits>

namespace limber {

/// The batch with the largest goodput: samples per second times what a sample is worth.
///
///     goodput(B) = B / T(B) · E(B)
///     E(B)       = (φ + B₀) / (φ + B)                        statistical efficiency, 1 at B₀
///     T(B)       = (T_grad^γ + T_sync^γ)^(1/γ)               seconds per update
///     T_grad     = α_grad + β_grad ⌈B / n⌉                   the largest share decides
///     T_sync     = 0 for n = 1, else α_sync + β_sync (n − 2)
///
/// φ = V / G is the simple noise scale in samples. γ = 1 adds computing and communication, γ → ∞ overlaps
/// them. The maximum is taken over a geometric grid, the smallest of equals:
///
///     Bₖ = B_low (B_high / B_low)^(k / (m − 1)), k = 0 … m − 1, to the nearest sample
///     B_low = max(B₀, n)      B_high = min(B_max, n · max_share)
///
/// Units    seconds and samples; α and β as somebody measured or fitted them: nothing is fitted here.
/// State    none. B_low while fewer than `min_estimates` of the noise were counted; φ = ∞ (no gradient stands
///          out) makes E = 1.
/// Cost     m evaluations.
/// Choices  no gradient accumulation (the paper's s = 0), and one T_sync for all places: give the α and β of
///          the slowest link. Equal shares. The rate has to follow the batch by AdaScale (`adascale`), as
///          there. The power may differ by a rounding between mathematical libraries: use one on all ranks.
/// Paper    Qiao et al., Pollux: Co-adaptive Cluster Scheduling for Goodput-Optimized Deep Learning,
///          OSDI 2021, arXiv:2008.12260.
struct goodput {
  i64 base_batch = 0;                               ///< B₀, the batch whose training is the measure, ≥ 1
  i64 max_batch = 0;                                ///< B_max, in [B₀, 2⁵³]
  double alpha_grad = 0;                            ///< seconds of an update whatever its size, ≥ 0
  double beta_grad = 0;                             ///< seconds per sample of a share, > 0
  double alpha_sync = 0;                            ///< seconds of a synchronisation of two workers, ≥ 0
  double beta_sync = 0;                             ///< seconds more for each further worker, ≥ 0
  double gamma = 1;                                 ///< overlap, in [1, 10]
  int candidates = 50;                              ///< m, sizes on the grid, in [2, 10,000]
  i64 max_share = std::numeric_limits<i64>::max();  ///< largest share of a rank (its memory), ≥ 1
  i64 min_estimates = 10;                           ///< estimates of the noise to wait for
  amount replan_every = epochs(1);                  ///< when to look again

  /// @throws std::invalid_argument if there are no workers, a member is out of range, or no batch is left
  ///         between the bounds
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const;

  /// Goodput of a batch in samples of B₀'s worth per second. @pre batch ≥ 1, world ≥ 1, phi ≥ 0
  [[nodiscard]] double at(i64 batch, int world, double phi) const;

  /// E(B). @pre batch ≥ 1, phi ≥ 0
  [[nodiscard]] double efficiency(i64 batch, double phi) const;

  /// T(B). @pre batch ≥ 1, world ≥ 1
  [[nodiscard]] double step_seconds(i64 batch, int world) const;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/noise_scale.ipp>
#endif

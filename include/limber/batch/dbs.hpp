// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A constant global batch whose shares follow the speed of the workers.

#include <limber/batch/plan.hpp>

#include <limits>
#include <vector>

namespace limber {

/// Dynamic batch size: shares in proportion to measured speeds, so that all ranks finish together.
///
///     pᵢ = bᵢ / tᵢ      bᵢ′ = B pᵢ / Σp, rounded by largest remainders: Σ bᵢ′ = B
///
/// The first plan is equal, and so is the first after a resize. A cost linear in b is balanced after one
/// plan. For tᵢ = a + cᵢ bᵢ nobody overtakes anybody, so nothing oscillates, and the spread of the times
/// shrinks with every plan, in the end at the rate a / (a + c b).
///
/// Units    batch, shares and caps in samples per update; tᵢ in seconds of computing, waiting excluded.
/// State    none but `batch_plan::speed`.
/// Cost     O(n log n) for n ranks.
/// Choices  The paper's code gives + 1 only to remainders ≥ ½ and so may lose a sample; here Σ is always B.
///          It adapts at the end of each epoch: a shorter disturbance is followed one plan late.
///          Not in the paper:
///          - `smoothing` a: pᵢ ← a pᵢ + (1 − a) bᵢ / tᵢ. 0 is the paper.
///          - `dead_band` d: shares stay while new ones would shorten the expected time max bᵢ / pᵢ by
///            less than a part d of it; speeds are learnt all the same. 0 is the paper.
///          - bounds: what a capped rank cannot take is dealt to the others in proportion to their speeds.
///          - a rank with 0 samples or no time keeps its believed speed; never measured, it counts as the
///            mean of the others. Shares stay where nothing at all was learnt.
/// Paper    Ye, Zhou, Shi, Sun and Lv, DBS: Dynamic Batch Size for Distributed Deep Neural Network Training,
///          arXiv:2007.11831.
struct dbs {
  i64 batch = 0;         ///< B, in [1, 2⁵³]
  double smoothing = 0;  ///< a, weight of the past, in [0, 1)
  double dead_band = 0;  ///< d, in [0, 1)
  i64 min_share = 1;     ///< smallest share, ≥ 0; a rank at 0 is never measured again
  i64 max_share = std::numeric_limits<i64>::max();  ///< largest share of any rank
  std::vector<i64> caps{};                          ///< largest share of each rank (its memory), or empty
  amount replan_every = epochs(1);

  /// @throws std::invalid_argument if a member is out of range, there are no workers, caps are not one a
  ///         rank, bounds leave no shares that sum to the batch, or the facts are not sound
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/dbs.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A constant global batch whose shares follow the speed of the workers.

#include <limber/batch/bounded.hpp>
#include <limber/batch/plan.hpp>
#include <limber/batch/replan.hpp>
#include <limber/batch/speed.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
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
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const {
    std::vector<i64> const high = highest(detail::world_of("dbs", facts));
    expects(smoothing >= 0 && smoothing < 1, "dbs: smoothing must lie in [0, 1), got ", smoothing);
    expects(dead_band >= 0 && dead_band < 1, "dbs: dead_band must lie in [0, 1), got ", dead_band);
    batch_plan plan{.total = batch, .speed = detail::believed_speeds("dbs", facts, smoothing)};
    auto const weight = detail::weights_of(plan.speed, high.size());
    plan.share = detail::apportion_within(batch, weight, min_share, high);
    batch_plan const* const current = detail::plan_in_force(facts);
    if (current != nullptr && legal(current->share, high) &&
        (plan.speed == current->speed || too_little(current->share, plan.share, weight)))
      plan.share = current->share;
    return plan;
  }

 private:
  // The largest share of each rank, after all checks of sizes.
  [[nodiscard]] std::vector<i64> highest(i64 world) const {
    expects(batch >= 1 && batch <= i64{1} << 53, "dbs: batch must lie in [1, 2^53], got ", batch);
    expects(min_share >= 0, "dbs: min_share must not be negative, got ", min_share);
    expects(max_share >= min_share, "dbs: max_share ", max_share, " is smaller than min_share ", min_share);
    expects(min_share <= batch / world, "dbs: batch ", batch, " is smaller than ", world,
            " workers x min_share ", min_share);
    auto const n = static_cast<std::size_t>(world);
    expects(caps.empty() || caps.size() == n, "dbs: caps holds ", caps.size(), " values for ", world,
            " workers");
    std::vector<i64> high(n, std::min(max_share, batch));
    for (std::size_t i = 0; i < caps.size(); ++i) {
      expects(caps[i] >= min_share, "dbs: cap of rank ", i, " is ", caps[i], ", smaller than min_share ",
              min_share);
      high[i] = std::min(high[i], caps[i]);
    }
    expects_room(high);
    return high;
  }

  void expects_room(std::span<i64 const> high) const {
    i64 room = 0;
    for (std::size_t i = 0; i < high.size() && room < batch; ++i) room += high[i];
    auto const lowest = std::ranges::min_element(high);
    expects(room >= batch, "dbs: batch ", batch, " does not fit: all ", high.size(), " workers hold ", room,
            " samples; rank ", lowest - high.begin(), " holds the fewest, ", *lowest);
  }

  [[nodiscard]] bool legal(std::span<i64 const> share, std::span<i64 const> high) const {
    i64 left = batch;
    for (std::size_t i = 0; i < share.size(); ++i) {
      if (share[i] < min_share || share[i] > high[i] || share[i] > left) return false;
      left -= share[i];
    }
    return left == 0;
  }

  [[nodiscard]] bool too_little(std::span<i64 const> now, std::span<i64 const> next,
                                std::span<double const> weight) const {
    auto const time = [&](std::span<i64 const> share) {
      double slowest = 0;
      for (std::size_t i = 0; i < share.size(); ++i)
        slowest = std::max(slowest, static_cast<double>(share[i]) / weight[i]);
      return slowest;
    };
    return dead_band > 0 && time(next) > (1 - dead_band) * time(now);
  }
};

static_assert(batch_policy<dbs> && replans<dbs>);

}  // namespace limber

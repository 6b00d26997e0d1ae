// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/bounded.hpp>
#include <limber/batch/dbs.hpp>
#include <limber/batch/speed.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace limber {

namespace detail {

// The largest share of each rank, after all checks of sizes.
[[nodiscard]] inline std::vector<i64> highest_shares(dbs const& how, i64 world) {
  i64 const batch = how.batch, min_share = how.min_share, max_share = how.max_share;
  auto const& caps = how.caps;
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
  i64 room = 0;
  for (std::size_t i = 0; i < high.size() && room < batch; ++i) room += high[i];
  auto const lowest = std::ranges::min_element(high);
  expects(room >= batch, "dbs: batch ", batch, " does not fit: all ", high.size(), " workers hold ", room,
          " samples; rank ", lowest - high.begin(), " holds the fewest, ", *lowest);
  return high;
}

// True if a plan may deal these shares.
[[nodiscard]] inline bool fits(dbs const& how, std::span<i64 const> share, std::span<i64 const> high) {
  i64 left = how.batch;
  for (std::size_t i = 0; i < share.size(); ++i) {
    if (share[i] < how.min_share || share[i] > high[i] || share[i] > left) return false;
    left -= share[i];
  }
  return left == 0;
}

// True if new shares would shorten the expected time by less than the dead band.
[[nodiscard]] inline bool within_dead_band(dbs const& how, std::span<i64 const> now,
                                           std::span<i64 const> next, std::span<double const> weight) {
  auto const time = [&](std::span<i64 const> share) {
    double slowest = 0;
    for (std::size_t i = 0; i < share.size(); ++i)
      slowest = std::max(slowest, static_cast<double>(share[i]) / weight[i]);
    return slowest;
  };
  return how.dead_band > 0 && time(next) > (1 - how.dead_band) * time(now);
}

}  // namespace detail

LIMBER_FN batch_plan dbs::operator()(batch_facts const& facts) const {
  std::vector<i64> const high = detail::highest_shares(*this, detail::world_of("dbs", facts));
  expects(smoothing >= 0 && smoothing < 1, "dbs: smoothing must lie in [0, 1), got ", smoothing);
  expects(dead_band >= 0 && dead_band < 1, "dbs: dead_band must lie in [0, 1), got ", dead_band);
  batch_plan plan{.total = batch, .speed = detail::believed_speeds("dbs", facts, smoothing)};
  auto const weight = detail::weights_of(plan.speed, high.size());
  plan.share = detail::apportion_within(batch, weight, min_share, high);
  batch_plan const* const current = detail::plan_in_force(facts);
  if (current != nullptr && detail::fits(*this, current->share, high) &&
      (plan.speed == current->speed || detail::within_dead_band(*this, current->share, plan.share, weight)))
    plan.share = current->share;
  return plan;
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/apportion.hpp>
#include <limber/batch/dbs.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace limber {

namespace detail {

/// True if the shares sum to `total`, each in [low, highᵢ].
[[nodiscard]] inline bool fits(i64 total, std::span<i64 const> share, i64 low, std::span<i64 const> high) {
  for (std::size_t i = 0; i < share.size(); ++i) {
    if (share[i] < low || share[i] > high[i] || share[i] > total) return false;
    total -= share[i];
  }
  return total == 0;
}

/// Divides `total` in proportion to `weights`, every share in [low, highᵢ].
///
///     sᵢ = clamp(λ wᵢ, low, highᵢ), with the level λ at which Σ sᵢ = total; the ranks between their bounds
///     are rounded by largest remainders
///
/// Where plain largest remainders fit the bounds, they are the answer.
/// Cost     O(n log n): 2n levels are sorted and searched by halves.
/// @pre weights > 0, n · low ≤ total ≤ Σ high, total ≤ 2⁵³, 0 ≤ low ≤ highᵢ ≤ total
[[nodiscard]] inline std::vector<i64> apportion_within(i64 total, std::span<double const> weights, i64 low,
                                                       std::span<i64 const> high) {
  std::vector<i64> share = apportion(total, weights);
  if (fits(total, share, low, high)) return share;

  std::size_t const n = share.size();
  // The levels at which rank i leaves its smallest share, and at which it meets its largest.
  auto const leaves = [&](std::size_t i) { return static_cast<double>(low) / weights[i]; };
  auto const meets = [&](std::size_t i) { return static_cast<double>(high[i]) / weights[i]; };
  // Rank i gets level · wᵢ, but at least `low` and at most highᵢ: is that the total at most?
  auto const within_total = [&](double level) {
    i64 bound = 0;    // dealt to ranks at a bound; stops above the total
    double free = 0;  // dealt to the others
    for (std::size_t i = 0; i < n && bound <= total; ++i) {
      if (level >= meets(i))
        bound += high[i];
      else if (level <= leaves(i))
        bound += low;
      else
        free = math::fma(level, weights[i], free);
    }
    return bound <= total && free <= static_cast<double>(total - bound);
  };
  // The last level, among those at which a rank comes to or leaves a bound, that deals at most the total.
  std::vector<double> levels;
  for (std::size_t i = 0; i < n; ++i) levels.insert(levels.end(), {leaves(i), meets(i)});
  std::sort(levels.begin(), levels.end());
  auto const above = std::partition_point(levels.begin(), levels.end(), within_total);
  double const level = above == levels.begin() ? levels.front() : *(above - 1);

  std::vector<std::size_t> free;  // the ranks between their bounds share the rest
  std::vector<double> weights_of_free;
  i64 rest = total;
  for (std::size_t i = 0; i < n; ++i) {
    bool const full = level >= meets(i);
    share[i] = full ? high[i] : low;
    if (!full && level >= leaves(i)) {
      free.push_back(i);
      weights_of_free.push_back(weights[i]);
    } else {
      rest -= share[i];
    }
  }
  if (!free.empty()) {
    std::vector<i64> const dealt = apportion(rest, weights_of_free);
    for (std::size_t k = 0; k < free.size(); ++k) share[free[k]] = std::clamp(dealt[k], low, high[free[k]]);
  }
  // Quotas are rounded: where one rounds across a bound, a few samples are left or too many.
  i64 left = total;
  for (i64 const s : share) left -= s;
  for (std::size_t i = 0; i < n && left != 0; ++i) {
    i64 const change = std::clamp(left, low - share[i], high[i] - share[i]);
    share[i] += change;
    left -= change;
  }
  return share;
}

/// The plan in force if it was made for these ranks, else null: after a resize rank i is somebody else.
[[nodiscard]] inline batch_plan const* plan_in_force(batch_facts const& facts) {
  batch_plan const* const plan = facts.current;
  return plan != nullptr && plan->share.size() == static_cast<std::size_t>(facts.world) ? plan : nullptr;
}

/// Samples/s of each rank; empty while no rank was measured.
///
///     pᵢ ← a pᵢ + (1 − a) bᵢ / tᵢ      (pᵢ ← bᵢ / tᵢ when first measured)
///
/// A rank without samples or without a time keeps its pᵢ.
/// @param smoothing a, in [0, 1)
/// @throws std::invalid_argument if seconds or believed speeds are negative or not finite, or their
///         numbers are not that of the ranks
[[nodiscard]] inline std::vector<double> believed_speeds(batch_facts const& facts, double smoothing) {
  auto const n = static_cast<std::size_t>(facts.world);
  std::vector<double> const& seconds = facts.seconds;
  expects(seconds.empty() || seconds.size() == n, "dbs: seconds holds ", seconds.size(), " values for ", n,
          " workers");
  batch_plan const* const current = plan_in_force(facts);
  if (current == nullptr) return {};
  expects(current->speed.empty() || current->speed.size() == n, "dbs: the current plan holds ",
          current->speed.size(), " speeds for ", n, " workers");

  std::vector<double> speed = current->speed;
  speed.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    expects(math::finite(speed[i]) && speed[i] >= 0, "dbs: believed speed of rank ", i,
            " must be finite and >= 0, got ", speed[i]);
    if (seconds.empty()) continue;
    expects(math::finite(seconds[i]) && seconds[i] >= 0, "dbs: seconds of rank ", i,
            " must be finite and >= 0, got ", seconds[i]);
    if (!(seconds[i] > 0) || current->share[i] <= 0) continue;
    double const measured = static_cast<double>(current->share[i]) / seconds[i];
    expects(math::finite(measured), "dbs: rank ", i, " took ", seconds[i], " s for ", current->share[i],
            " samples, which is no speed");
    speed[i] = speed[i] > 0 ? math::add(math::mul(smoothing, speed[i]), math::mul(1 - smoothing, measured))
                            : measured;
  }
  if (std::ranges::none_of(speed, [](double p) { return p > 0; })) speed.clear();
  return speed;
}

/// Weights in (0, 1] in proportion to speeds. A rank never measured weighs as the mean of the others; all
/// weigh alike while none was.
[[nodiscard]] inline std::vector<double> weights_of(std::span<double const> speed, std::size_t world) {
  std::vector<double> weight(world, 1.0);
  if (speed.empty()) return weight;
  double const fastest = std::ranges::max(speed);
  double sum = 0, known = 0;
  for (double const p : speed)
    if (p > 0) {
      sum += p / fastest;
      ++known;
    }
  // The smallest weight keeps a rank that is slower by more than a double can say above 0.
  for (std::size_t i = 0; i < world; ++i)
    weight[i] = speed[i] > 0 ? std::max(speed[i] / fastest, 1e-300) : sum / known;
  return weight;
}

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
  batch_plan plan{.total = batch, .speed = detail::believed_speeds(facts, smoothing)};
  auto const weight = detail::weights_of(plan.speed, high.size());
  plan.share = detail::apportion_within(batch, weight, min_share, high);
  batch_plan const* const current = detail::plan_in_force(facts);
  if (current != nullptr && detail::fits(batch, current->share, min_share, high) &&
      (plan.speed == current->speed || detail::within_dead_band(*this, current->share, plan.share, weight)))
    plan.share = current->share;
  return plan;
}

}  // namespace limber

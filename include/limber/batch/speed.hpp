// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How fast each rank is, from what was measured and what was believed before.

#include <limber/batch/plan.hpp>
#include <limber/core/error.hpp>
#include <limber/core/math.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

namespace limber::detail {

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
[[nodiscard]] inline std::vector<double> believed_speeds(std::string_view policy, batch_facts const& facts,
                                                         double smoothing) {
  auto const n = static_cast<std::size_t>(facts.world);
  std::vector<double> const& seconds = facts.seconds;
  expects(seconds.empty() || seconds.size() == n, policy, ": seconds holds ", seconds.size(), " values for ",
          n, " workers");
  batch_plan const* const current = plan_in_force(facts);
  if (current == nullptr) return {};
  expects(current->speed.empty() || current->speed.size() == n, policy, ": the current plan holds ",
          current->speed.size(), " speeds for ", n, " workers");

  std::vector<double> speed = current->speed;
  speed.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    expects(math::finite(speed[i]) && speed[i] >= 0, policy, ": believed speed of rank ", i,
            " must be finite and >= 0, got ", speed[i]);
    if (seconds.empty()) continue;
    expects(math::finite(seconds[i]) && seconds[i] >= 0, policy, ": seconds of rank ", i,
            " must be finite and >= 0, got ", seconds[i]);
    if (!(seconds[i] > 0) || current->share[i] <= 0) continue;
    double const measured = static_cast<double>(current->share[i]) / seconds[i];
    expects(math::finite(measured), policy, ": rank ", i, " took ", seconds[i], " s for ", current->share[i],
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

}  // namespace limber::detail

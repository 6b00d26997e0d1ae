// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The duration of computations.

#include <limber/core/random.hpp>
#include <limber/sim/cluster.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

namespace limber::sim::detail {

/// Standard normal, keyed by (seed, stream, index).
[[nodiscard]] inline double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) noexcept {
  words4 const r = philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                           static_cast<std::uint32_t>(stream), 0x73696du},
                          seed);
  auto const unit = [](std::uint32_t high, std::uint32_t low) {  // in (0, 1)
    return (static_cast<double>((std::uint64_t{high} << 20) ^ (low >> 12)) + 0.5) * 0x1p-52;
  };
  return std::sqrt(-2 * std::log(unit(r.x, r.y))) * std::cos(2 * std::numbers::pi * unit(r.z, r.w));
}

/// The compute times of one worker.
///
///     work = (seconds_per_call + n · seconds_per_sample) · exp(σ z − σ²/2),   z ~ N(0, 1)
///     end  = the t where ∫ from start to t of 1 / factor(τ) dτ = work
///
/// State    the number of draws: z depends on seed, worker and draw alone.
class compute_time {
 public:
  compute_time(cluster const& c, int worker)
      : speed_(c.workers[static_cast<std::size_t>(worker)]), seed_(c.seed), worker_(worker) {
    std::vector<double> edges;
    for (auto const& s : c.slowdowns)
      if (s.worker == worker) edges.insert(edges.end(), {s.from, s.until});
    std::ranges::sort(edges);
    edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
    for (double const at : edges) {
      double factor = 1;
      for (auto const& s : c.slowdowns)
        if (s.worker == worker && s.from <= at && at < s.until) factor *= s.factor;
      segments_.push_back({at, factor});
    }
  }

  /// The end time of a computation of `samples` samples that begins at `start`.
  [[nodiscard]] double end(double start, double samples) noexcept {
    double work = speed_.seconds_per_call + samples * speed_.seconds_per_sample;
    if (speed_.jitter > 0)
      work *= std::exp(speed_.jitter * normal(seed_, static_cast<std::uint64_t>(worker_), draws_++) -
                       speed_.jitter * speed_.jitter / 2);
    double t = start, factor = 1;
    auto next = segments_.begin();
    for (; next != segments_.end() && next->from <= t; ++next) factor = next->factor;
    for (; next != segments_.end(); ++next) {
      double const until_edge = (next->from - t) / factor;
      if (work <= until_edge) break;
      work -= until_edge;
      t = next->from;
      factor = next->factor;
    }
    return t + work * factor;
  }

 private:
  struct segment {
    double from, factor;
  };

  speed speed_;
  std::uint64_t seed_;
  int worker_;
  std::uint64_t draws_ = 0;
  std::vector<segment> segments_;
};

}  // namespace limber::sim::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Virtual clusters of the rows about ABS-SGD.

#include "session.hpp"
#include "training.hpp"

#include <limber/core/random.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace limber::papers {

/// A bandwidth at which a ring of n workers reduces `bytes` in `seconds`.
[[nodiscard]] inline double bandwidth_for(double seconds, int n, double bytes) {
  return 2 * (n - 1) * bytes / n / seconds;
}
[[nodiscard]] inline double model_bytes(task const& data, int hidden) {
  return 4 * static_cast<double>(data.of(hidden).parameters());
}

[[nodiscard]] inline sim::cluster with_speeds(std::vector<double> const& per_millisecond, sim::link network,
                                              double jitter) {
  sim::cluster c = cluster_of(static_cast<int>(per_millisecond.size()), 1e-3, network, jitter);
  for (std::size_t i = 0; i < per_millisecond.size(); ++i)
    c.workers[i].seconds_per_sample = 1e-3 / per_millisecond[i];
  return c;
}

/// Three kinds of cluster with 4 workers: unequal speeds, disturbed ones, and a slow network.
[[nodiscard]] inline std::vector<std::pair<std::string, sim::cluster>> clusters(task const& data, int hidden,
                                                                                i64 micro_batch) {
  double const slowest = static_cast<double>(micro_batch) * 1e-3, bytes = model_bytes(data, hidden);
  auto const network = [&](double part) {
    return sim::link{.latency = 1e-5, .bandwidth = bandwidth_for(part * slowest, 4, bytes)};
  };
  auto disturbed = with_speeds({2, 2, 2, 2}, network(.25), .1);
  // Each worker is 2 to 5 times slower for 0.2 to 1.2 s, by turns with as long without.
  for (int w = 0; w < 4; ++w) {
    double at = 0;
    for (std::uint64_t k = 0; at < 60; ++k) {
      auto const u = [&](std::uint64_t of) {
        return static_cast<double>(random_bits(77 + static_cast<std::uint64_t>(w), of, k) >> 11) * 0x1p-53;
      };
      double const from = at + .2 + u(0), until = from + .2 + u(1);
      disturbed.slowdowns.push_back({.worker = w, .from = from, .until = until, .factor = 2 + 3 * u(2)});
      at = until;
    }
  }
  return {{"static", with_speeds({1, 1, 2, 4}, network(.25), .1)},
          {"dynamic", disturbed},
          {"network", with_speeds({1, 1, 1.5, 1.5}, network(1.5), .1)}};
}

}  // namespace limber::papers

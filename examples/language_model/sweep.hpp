// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The comparison at many rates and growth factors, so that nobody has to trust one setting.

#include "experiment.hpp"
#include "options.hpp"

#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace example {

/// Immediate scaling and Dynamic SGD at one rate and one growth of the workers.
struct sweep_row {
  double eta = 0;
  int growth = 1;
  limber::i64 updates_after = 0;
  variant_result immediate{};
  variant_result dynamic_sgd{};
};

/// Trains with o.workers[0] workers, then with `growth` times as many, at constant rates.
///
/// Choices  no decay of the rate, so that a row does not depend on how far the run had got.
/// @param speed samples/s to estimate the time by
template <trainable Model>
[[nodiscard]] std::vector<sweep_row> run_sweep(Model const& start, options const& o, limber::i64 epoch_size,
                                               task const& what, double speed, live_line& line) {
  std::vector<sweep_row> rows;
  double samples = 0;
  options one = o;
  one.constant = true;
  // Long enough for the longest ramp, of 8 · 32 updates.
  one.steps = o.smoke ? std::vector<limber::i64>{8, 4} : std::vector<limber::i64>{600, 300};
  auto const plan = [&](sweep_row const& row) {
    one.eta = row.eta;
    one.workers = {o.workers[0], o.workers[0] * row.growth};
    return one.plan(epoch_size);
  };
  for (double const eta : {0.025, 0.05, 0.1, 0.2}) {
    for (int const growth : {4, 16, 32}) {
      rows.push_back({eta, growth, one.steps[1]});
      samples += 2 * static_cast<double>(plan(rows.back()).samples());
    }
  }
  std::printf("\nSweep: %zu runs, %.1f million samples, about %.0f s at the speed of dynamic_sgd above.\n",
              2 * rows.size(), samples / 1e6, samples / speed);
  for (auto& row : rows) {
    training run = plan(row);
    auto const name = [&](char const* variant) {
      return limber::text(variant, " ", row.eta, " x", row.growth);
    };
    run.ramp = limber::immediate;
    row.immediate = run_variant(name("immediate"), start, run, what, line).first;
    run.ramp = limber::ramp_rule{};
    row.dynamic_sgd = run_variant(name("dynamic_sgd"), start, run, what, line).first;
    row.immediate.name = "immediate";
    row.dynamic_sgd.name = "dynamic_sgd";
  }
  return rows;
}

}  // namespace example

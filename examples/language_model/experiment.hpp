// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Runs one variant of a training, and writes down what a comparison needs.

#include "console.hpp"
#include "trace.hpp"
#include "train.hpp"

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace example {

/// What is trained on and judged by; the same for all variants.
struct task {
  std::string unit;                   ///< of the loss, for people
  bool classes = false;               ///< whether accuracy is worth showing
  std::vector<limber::i64> probe;     ///< held-out samples that are evaluated again and again
  std::vector<limber::i64> held_out;  ///< held-out samples of the final score
};

/// Up to `count` of the samples [first, end), evenly spaced.
[[nodiscard]] inline std::vector<limber::i64> spread(limber::i64 first, limber::i64 end, limber::i64 count) {
  limber::i64 const n = end - first, take = std::min(n, count);
  std::vector<limber::i64> out;
  for (limber::i64 i = 0; i < take; ++i) out.push_back(first + i * n / take);
  return out;
}

/// What became of one variant.
struct variant_result {
  std::string name;
  std::vector<trace_point> points{};
  std::vector<resize_record> resizes{};
  double worst_spike = 0;
  score final{};
  limber::i64 samples = 0, steps = 0;
  double seconds = 0;
  std::string failure{};  ///< why the run ended early; empty if it did not

  [[nodiscard]] double samples_per_second() const { return static_cast<double>(samples) / seconds; }
};

/// "dynamic_sgd  epoch 0.43  64 workers  batch 1024  rate 0.984 (ramp 85/128)  2.53 bits per byte  20k
/// samples/s"
[[nodiscard]] inline std::string describe(std::string const& name, limber::progress const& now, int workers,
                                          double rate, double loss, std::string const& unit, double seconds) {
  bool const ramping = now.batch.running(now.steps - 1);
  auto const ramp = limber::text(" (ramp ", now.steps - now.batch.begin, "/", now.batch.length, ")");
  return limber::text(padded(name, 11), "  epoch ", rounded(now.in(limber::unit::epochs), 2), "  ", workers,
                      " workers  batch ", rounded(now.planned_batch(), 0), "  rate ", significant(rate),
                      ramping ? ramp : "", "  ", rounded(loss, 2), " ", unit, "  ",
                      rounded(static_cast<double>(now.samples) / seconds / 1000, 0), "k samples/s");
}

/// Trains a copy of `start`. @return what happened, and the trained model
template <trainable Model>
[[nodiscard]] std::pair<variant_result, Model> run_variant(std::string const& name, Model const& start,
                                                           training const& run, task const& what,
                                                           live_line& line) {
  std::vector<limber::i64> ends;
  for (auto const& g : run.generations) ends.push_back(g.end);
  trace record(ends, std::max<limber::i64>(1, run.samples() / 300));
  variant_result out{.name = name};
  double const begin = limber::steady_seconds();
  double smooth = 0, weight = 0;
  std::string last;

  auto const watch = [&](Model const& model, auto const& optimizer, double bits) {
    auto const& now = optimizer.now();
    auto const workers = static_cast<int>(optimizer.planned().share.size());
    // Not a loss: no samples in the short step at the end of an epoch, or a step that will be skipped.
    if (bits > 0 && std::isfinite(bits)) {
      smooth = 0.95 * smooth + 0.05 * bits;
      weight = 0.95 * weight + 0.05;
    }
    if (record.due(now.samples, now.steps, workers, optimizer.planned().total)) {
      record.add({now.samples, now.steps, workers, optimizer.last().rate, model.evaluate(what.probe).bits});
    }
    out.samples = now.samples;
    out.steps = now.steps;
    bool const ends_here = now.samples >= run.samples();
    if (line.due() || ends_here) {
      last = describe(name, now, workers, optimizer.last().rate, smooth / weight, what.unit,
                      limber::steady_seconds() - begin);
      if (!ends_here) line.show(last);
    }
  };

  Model trained = start;
  try {
    trained = train(start, run, watch);
    out.final = trained.evaluate(what.held_out);
  } catch (limber::error const& e) {
    // A variant that diverges is a result, not a failure of the comparison.
    out.failure = e.what();
  }
  out.worst_spike = record.worst_spike();
  constexpr double infinite = std::numeric_limits<double>::infinity();
  if (!out.failure.empty()) out.worst_spike = infinite;
  if (!out.failure.empty() || !std::isfinite(out.final.bits)) out.final = {infinite, 0};
  out.seconds = limber::steady_seconds() - begin;
  out.points = record.points();
  out.resizes = record.resizes();
  line.finish(out.failure.empty() ? last : limber::text(name, " diverged: ", out.failure));
  return {std::move(out), std::move(trained)};
}

}  // namespace example

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What is written down during a run: the loss on a fixed held-out probe, and what a resize does to it.

#include <limber/core/config.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace example {

/// The state of training at one evaluation of the probe.
struct trace_point {
  limber::i64 samples = 0;
  limber::i64 steps = 0;
  int workers = 0;
  double rate = 0;  ///< of the update before
  double bits = 0;  ///< mean loss on the probe; +∞ if it is not finite
};

/// A change of the set of workers, and the spike after it.
///
///     spike = max of the probe's loss over the `after` updates that follow / level
///     level = mean of the probe's loss over the last `before` updates
///
/// Choices  the probe is evaluated after every single update in both windows; the second one is cut
///          off by the next resize. A spike below 1 means that the loss only fell.
struct resize_record {
  static constexpr limber::i64 before = 20, after = 60;

  limber::i64 samples = 0;  ///< trained on when it happened
  limber::i64 steps = 0;    ///< updates applied when it happened
  int from = 0, to = 0;
  double level = 0;
  double worst = 0;

  /// +∞ if the loss was not finite.
  [[nodiscard]] double spike() const {
    return std::isfinite(worst / level) ? worst / level : std::numeric_limits<double>::infinity();
  }
};

/// Collects a run's trace.
class trace {
 public:
  /// @param ends samples at which the generations end
  /// @param spacing samples between evaluations away from resizes
  trace(std::vector<limber::i64> ends, limber::i64 spacing) : ends_(std::move(ends)), spacing_(spacing) {}

  /// Whether the probe is to be evaluated after the update that led to `samples`. Call once an update.
  /// @param batch samples of an update
  [[nodiscard]] bool due(limber::i64 samples, limber::i64 steps, int workers, limber::i64 batch) {
    if (generation_ + 1 < ends_.size() && previous_.samples >= ends_[generation_]) {
      resizes_.push_back({previous_.samples, previous_.steps, previous_.workers, workers, 0, 0});
      ++generation_;
    }
    previous_ = {samples, steps, workers, 0, 0};
    bool const just_resized = !resizes_.empty() && steps - resizes_.back().steps <= resize_record::after;
    // Some updates more than are needed: short steps at the end of an epoch may come between.
    bool const resizes_soon =
        generation_ + 1 < ends_.size() && samples + (resize_record::before + 5) * batch >= ends_[generation_];
    return just_resized || resizes_soon || points_.empty() || samples >= points_.back().samples + spacing_ ||
           samples >= ends_.back();
  }

  /// Adds an evaluation that was due.
  void add(trace_point p) {
    if (!std::isfinite(p.bits)) p.bits = std::numeric_limits<double>::infinity();
    points_.push_back(p);
  }

  [[nodiscard]] std::vector<trace_point> const& points() const { return points_; }

  /// The resizes so far with their levels and spikes.
  [[nodiscard]] std::vector<resize_record> resizes() const {
    auto out = resizes_;
    for (std::size_t i = 0; i < out.size(); ++i) {
      auto& r = out[i];
      auto const next = i + 1 < out.size() ? out[i + 1].steps : std::numeric_limits<limber::i64>::max();
      limber::i64 counted = 0;
      for (auto const& p : points_) {
        limber::i64 const since = p.steps - r.steps;
        if (since > -resize_record::before && since <= 0) {
          r.level += p.bits;
          ++counted;
        } else if (since > 0 && since <= resize_record::after && p.steps <= next) {
          r.worst = std::max(r.worst, p.bits);
        }
      }
      r.level /= static_cast<double>(counted);
    }
    return out;
  }

  [[nodiscard]] double worst_spike() const {
    double worst = 0;
    for (auto const& r : resizes()) worst = std::max(worst, r.spike());
    return worst;
  }

 private:
  std::vector<limber::i64> ends_;
  limber::i64 spacing_;
  std::size_t generation_ = 0;
  trace_point previous_{};
  std::vector<trace_point> points_;
  std::vector<resize_record> resizes_;
};

}  // namespace example

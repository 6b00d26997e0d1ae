// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Momentum SGD on a noisy quadratic, exactly: what a change of the batch does to it.

#include <limber/core/progress.hpp>
#include <limber/rule/sgd.hpp>
#include <limber/schedule/schedules.hpp>

#include <algorithm>

namespace limber::papers {

/// Second moments of (w, v) under the library's rule, for the loss w²/2 with gradient w + ξ, Var ξ = 1/B.
///
///     v ← c v + a (w + ξ)      w ← w + s v        c, a, s: the coefficients of `sgd`
///
/// No sampling error.
struct second_moments {
  double ww = 0, wv = 0, vv = 0;

  void step(sgd::coefficients<double> const& c, double batch) {
    double const carried = c.carry * wv + c.take * ww;
    double const velocity =
        c.carry * c.carry * vv + 2 * c.carry * c.take * wv + c.take * c.take * (ww + 1 / batch);
    ww += 2 * c.step * carried + c.step * c.step * velocity;
    wv = carried + c.step * velocity;
    vv = velocity;
  }
};

/// A run in its steady state at one batch, which then changes.
class switched_run {
 public:
  static constexpr double base_rate = 0.02;  ///< η h at batch 1
  static constexpr int window = 1200;        ///< updates that are looked at; the longest ramp has 512

  switched_run(double from, double to, ramp_rule how, sgd rule) : rule_(rule) {
    at_.steps = 1'000'000;
    at_.batch = {.from = from, .to = from};
    for (int i = 0; i < 20'000; ++i) (void)step();
    level_ = now_.ww;
    at_.batch = at_.batch.rearmed(at_.steps, to, how);
  }

  /// Excess loss after one more update, over the level before the change.
  double step() {
    double const rate = lr_(at_);
    now_.step(
        rule_.at<double>({.t = at_.steps, .rate = rate, .previous_rate = before_ == 0 ? rate : before_}),
        at_.planned_batch());
    before_ = rate;
    ++at_.steps;
    return now_.ww / level_;
  }

  [[nodiscard]] double peak() {
    double highest = 0;
    for (int i = 0; i < window; ++i) highest = std::max(highest, step());
    return highest;
  }

  /// The steady level after the change over that before it. Runs on to it.
  [[nodiscard]] double level_after() {
    double last = 1;
    for (int i = 0; i < 20'000; ++i) last = step();
    return last;
  }

  /// Variance of the coming update w' − w.
  [[nodiscard]] double update_variance(double rate) const {
    auto next = now_;
    auto const c = rule_.at<double>({.t = at_.steps, .rate = rate, .previous_rate = rate});
    next.step(c, at_.planned_batch());
    return c.step * c.step * next.vv;
  }
  [[nodiscard]] double rate() const { return lr_(at_); }

 private:
  linear_scaling lr_ = limber::dynamic_sgd(base_rate, 1);
  sgd rule_;
  progress at_;
  second_moments now_;
  double before_ = 0;
  double level_ = 1;
};

}  // namespace limber::papers

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Every method with its own rate and momentum, found on seeds of their own.

#include "session.hpp"
#include "statistics.hpp"
#include "training.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace limber::papers {

/// A method, and the values that are tried for it. The run's own rate and momentum are overwritten.
struct contender {
  std::string name;
  training run;
  std::vector<double> etas;
  std::vector<double> momenta{0, .5, .9};
  rate_function shape{};  ///< multiplies the rate; empty: constant
};

/// A method at its best setting.
struct tuned {
  std::string name;
  double eta = 0;
  double momentum = 0;
  bool at_edge = false;         ///< the best rate was the largest or smallest that was tried
  std::vector<outcome> runs{};  ///< one a seed, paired over methods

  /// One number of each run.
  template <class F>
  [[nodiscard]] std::vector<double> each(F value) const {
    std::vector<double> out;
    for (auto const& r : runs) out.push_back(value(r));
    return out;
  }
};

/// What is made small: virtual seconds to the target; where it is not reached, worse than all that do, the
/// higher the loss the worse.
[[nodiscard]] inline double time_to_target(outcome const& o) {
  if (std::isfinite(o.reached)) return o.reached;
  return 1e12 * (1 + (o.diverged || !std::isfinite(o.train_loss) ? 1e3 : o.train_loss));
}

/// Whether all seeds came to the target.
[[nodiscard]] inline bool reached(tuned const& t) {
  return !t.runs.empty() &&
         std::ranges::all_of(t.runs, [](outcome const& o) { return std::isfinite(o.reached); });
}

/// A loss to aim at, whatever the data: what plain SGD with 16 samples has after so many epochs.
[[nodiscard]] inline double reference_loss(session const& s, int hidden, double epochs) {
  training run{.cluster = cluster_of(1, 1)};
  run.rate = [](progress const&) { return .2; };
  run.batch = per_worker{16};
  run.hidden = hidden;
  run.epochs = epochs;
  return train(run, s.data).train_loss;
}

[[nodiscard]] inline training at(contender const& c, double eta, double momentum, std::uint64_t seed) {
  training run = c.run;
  run.rule.momentum = momentum;
  run.rule.nesterov = run.rule.nesterov && momentum > 0;
  // `momentum` is that of the sum of past gradients: η / (1 − μ) is what a gradient moves in the end, and
  // that is what is swept, so that one list of rates serves all momenta.
  double const rate = eta * (1 - momentum);
  run.rate = [rate, shape = c.shape](progress const& p) { return shape ? rate * shape(p) : rate; };
  run.seed = seed;
  run.cluster.seed = seed;
  return run;
}

/// Tries all rates and momenta of all contenders on `tuning` seeds, then runs the best of each on `seeds`
/// others. The whole sweep is kept in the report under `name`.
/// @param cost is made small, as a mean over the tuning seeds
[[nodiscard]] inline std::vector<tuned> compete(session& s, std::string const& name,
                                                std::vector<contender> const& contenders, int tuning,
                                                int seeds,
                                                std::function<double(outcome const&)> const& cost) {
  struct trial {
    std::size_t who;
    double eta, momentum;
    std::vector<double> costs;
  };
  std::vector<trial> trials;
  for (std::size_t c = 0; c < contenders.size(); ++c)
    for (double const momentum : contenders[c].momenta)
      for (double const eta : contenders[c].etas)
        trials.push_back({c, eta, momentum, std::vector<double>(static_cast<std::size_t>(tuning))});
  auto const per = static_cast<std::size_t>(tuning);
  s.runs(name + ", tuning", trials.size() * per, [&](std::size_t i) {
    auto& t = trials[i / per];
    t.costs[i % per] = cost(train(at(contenders[t.who], t.eta, t.momentum, 9000 + i % per), s.data));
  });
  std::vector<tuned> best(contenders.size());
  std::vector<double> lowest(contenders.size(), never);
  json sweep = json::array();
  for (auto const& t : trials) {
    double const c = mean(t.costs);
    auto const& who = contenders[t.who];
    sweep.push_back({{"method", who.name},
                     {"eta", t.eta},
                     {"momentum", t.momentum},
                     {"cost", c >= 1e12 ? json("not reached") : number(c)}});
    if (!(c < lowest[t.who])) continue;
    lowest[t.who] = c;
    best[t.who] = {who.name, t.eta, t.momentum, t.eta == who.etas.front() || t.eta == who.etas.back(),
                   std::vector<outcome>(static_cast<std::size_t>(seeds))};
  }
  auto const n = static_cast<std::size_t>(seeds);
  s.runs(name, best.size() * n, [&](std::size_t i) {
    auto& b = best[i / n];
    if (b.runs.empty()) return;
    b.runs[i % n] = train(at(contenders[i / n], b.eta, b.momentum, 100 + i % n), s.data);
  });
  json chosen = json::array();
  for (auto const& b : best)
    chosen.push_back({{"method", b.name},
                      {"eta", b.eta},
                      {"momentum", b.momentum},
                      {"at_edge_of_sweep", b.at_edge},
                      {"cost", [&] {
                         json costs = json::array();
                         for (auto const& r : b.runs) {
                           double const c = cost(r);
                           costs.push_back(c >= 1e12 ? json("not reached") : number(c));
                         }
                         return costs;
                       }()}});
  s.sweeps[name] = {{"tried", sweep}, {"chosen", chosen}};
  return best;
}

/// Mean loss over time of the runs' curves, for a figure: that of the first seed, which is one of equals.
[[nodiscard]] inline curve loss_curve(tuned const& t) {
  curve c{text(t.name, " (eta ", short_number(t.eta), ", mu ", short_number(t.momentum), ')'), {}};
  if (!t.runs.empty())
    for (auto const& p : t.runs.front().curve) c.points.emplace_back(p.seconds, p.loss);
  return c;
}

}  // namespace limber::papers

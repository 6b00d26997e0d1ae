// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Training while workers come and go, on the virtual cluster.

#include "training.hpp"

#include <limber/batch/policies.hpp>
#include <limber/limber.hpp>
#include <limber/sim/sim.hpp>

#include <algorithm>
#include <cmath>
#include <list>
#include <optional>
#include <vector>

namespace limber::papers {

/// So many workers until `samples` were trained on.
struct generation {
  int workers = 1;
  i64 samples = 0;
};

struct elastic_training {
  std::vector<generation> generations{};
  i64 per_worker = 4;
  double eta = .1;  ///< at the batch of one worker
  sgd rule{.momentum = .9};
  ramp_rule ramp{};
  bool anneal = false;  ///< a cosine brings the rate to 0
  int hidden = 24;
  std::uint64_t seed = 1;
  i64 window = 0;  ///< updates after a change in which the probe is looked at; 0: never
};

struct elastic_outcome {
  double spike =
      0;  ///< the largest loss in the window after a change over the mean of 30 before, of all changes
  double train_loss = never;
  score test{never, 0};
  bool diverged = false;
  std::vector<std::pair<double, double>> losses{};  ///< by update, where watched
};

/// Workers are ranks of one group, of which each generation takes the first.
[[nodiscard]] inline elastic_outcome train(elastic_training const& run, task const& data) {
  elastic_outcome out;
  auto const form = data.of(run.hidden);
  auto const probe = data.probe(400);
  values first(form.parameters());
  network::initialize(form, first, run.seed);
  network net(form);
  int const most = std::ranges::max(run.generations, {}, &generation::workers).workers;
  double const length = static_cast<double>(run.generations.back().samples);
  values last = first;
  std::vector<i64> changes;  // updates

  auto const machine = [&](sim::worker& w) {
    values model = first, gradient(first.size());
    std::vector<tensor> const parameters{{"model", model, gradient}};
    auto const make = [&](sim::communicator& team) {
      return optimizer{parameters,
                       run.rule,
                       limber::dynamic_sgd(run.eta, static_cast<double>(run.per_worker)) *
                           cosine(samples(length), run.anneal ? 0.0 : 1.0),
                       sync::allreduce{},
                       team,
                       {.batch = per_worker{run.per_worker},
                        .epoch_size = data.train_size(),
                        .ramp = run.ramp,
                        .clock = w.clock()}};
    };
    std::list<sim::communicator> teams;  // they must outlive the optimizer
    std::optional<decltype(make(w.comm()))> opt;
    sampler order(data.train_size(), run.seed);
    for (std::size_t k = 0; k < run.generations.size(); ++k) {
      auto const& g = run.generations[k];
      bool const works = w.rank() < g.workers;
      auto& team = teams.emplace_back(w.comm().split(works ? 1 : 0));
      if (works && opt) {
        opt->resize(team);
      } else if (works) {
        opt.emplace(make(team));
      } else if (opt) {
        opt->finish();
        opt.reset();
      }
      if (!works) continue;
      opt->handshake();
      i64 const done = opt->now().samples;
      order.restore({data.train_size(), run.seed, done / data.train_size(), done % data.train_size()});
      if (w.rank() == 0 && k > 0) changes.push_back(opt->now().steps);
      i64 const began = opt->now().steps;
      while (opt->now().samples < g.samples) {
        auto const mine = order.take(opt->planned().share, team.rank());
        if (!mine.empty()) (void)data.run(net, model, mine, gradient.data());
        w.compute(static_cast<double>(mine.size()));
        opt->step(static_cast<i64>(mine.size()));
        if (w.rank() != 0 || run.window == 0) continue;
        bool const near_end =
            k + 1 < run.generations.size() && g.samples - opt->now().samples <= 30 * opt->planned().total;
        if (near_end || (k > 0 && opt->now().steps - began <= run.window))
          out.losses.emplace_back(static_cast<double>(opt->now().steps), data.run(net, model, probe).loss);
      }
    }
    if (opt) opt->finish();
    if (w.rank() == 0) last = model;
  };
  sim::cluster c = cluster_of(most, 1);
  try {
    (void)sim::run(c, machine);
  } catch (error const&) { out.diverged = true; }

  for (i64 const change : changes) {
    double before = 0, count = 0, worst = 0;
    for (auto const& [step, loss] : out.losses) {
      double const since = step - static_cast<double>(change);
      double const bounded = std::isfinite(loss) ? std::min(loss, 1e3) : 1e3;
      if (since <= 0 && since > -30) before += bounded, ++count;
      if (since > 0 && since <= static_cast<double>(run.window)) worst = std::max(worst, bounded);
    }
    if (count > 0) out.spike = std::max(out.spike, worst * count / before);
  }
  if (!out.diverged) {
    out.train_loss = data.run(net, last, probe).loss;
    out.test = data.run(net, last, data.held_out());
    out.diverged = !std::isfinite(out.train_loss);
  }
  return out;
}

}  // namespace limber::papers

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Trying a strategy: its rate is tuned first, then it is run with other seeds.

#include "../../bench/papers/pool.hpp"
#include "candidates.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace example {

/// What is asked of every candidate.
struct trial_options {
  limber::i64 micro_batch = 16;
  double target = 0.25;  ///< loss, nats
  double epochs = 20;    ///< after which a run gives up
  int seeds = 3;
  int hidden = 24;
  std::vector<double> rates{0.025, 0.05, 0.1, 0.2, 0.4, 0.8};
  std::vector<double> momenta{0, 0.9};
};

/// What became of a candidate. Medians over the seeds.
struct verdict {
  candidate what;
  double rate = 0, momentum = 0;  ///< the best of the sweep
  double samples_per_second = 0;
  double seconds = papers::never;  ///< to the target; infinite if most seeds did not reach it
  double samples = papers::never;  ///< to the target
  double bytes_per_sample = 0;
  double utilisation = 0;  ///< of the workers, a server left out
  double network = 0;      ///< share of the workers' time that the one waits which waits least
  double stragglers = 0;   ///< share of their time that the others wait beyond that
  double accuracy = 0;     ///< on what was held out
};

[[nodiscard]] inline double median(std::vector<double> v) {
  if (v.empty()) return papers::never;
  std::ranges::sort(v);
  return v[v.size() / 2];
}

/// The run of a candidate with one rate, momentum and seed.
[[nodiscard]] inline papers::training training_of(candidate const& k, cluster_description const& c,
                                                  trial_options const& o, papers::task const& data,
                                                  double rate, double momentum, std::uint64_t seed) {
  papers::training run;
  run.hidden = o.hidden;
  cluster_description all = c;
  // The server computes nothing; it is a worker that is never asked to.
  if (k.server) all.speeds.insert(all.speeds.begin(), 1);
  for (auto& s : all.slowdowns) s.worker += k.server ? 1 : 0;
  run.cluster = virtual_cluster(all, 4.0 * static_cast<double>(data.of(o.hidden).parameters()));
  run.cluster.seed = seed;
  if (k.server) run.cluster.block_size = 0;
  run.how = k.how;
  run.rule = limber::sgd{.momentum = momentum};
  run.rate = [rate](limber::progress const&) { return rate; };
  run.batch = k.batch;
  run.seed = seed;
  run.epochs = o.epochs;
  run.target = o.target;
  return run;
}

/// Tunes and runs all candidates, several runs at a time. Calls shown(done, all) after each.
[[nodiscard]] inline std::vector<verdict> try_all(
    std::vector<candidate> const& what, cluster_description const& c, trial_options const& o,
    papers::task const& data, std::function<void(std::size_t, std::size_t)> const& shown) {
  std::size_t const grid = o.rates.size() * o.momenta.size(), seeds = static_cast<std::size_t>(o.seeds),
                    all = what.size() * (grid + seeds);
  std::vector<papers::outcome> sweep(what.size() * grid), runs(what.size() * seeds);
  papers::each_on_all_cores(
      sweep.size(),
      [&](std::size_t i) {
        auto const& k = what[i / grid];
        double const rate = o.rates[i % grid / o.momenta.size()], momentum = o.momenta[i % o.momenta.size()];
        sweep[i] = papers::train(training_of(k, c, o, data, rate, momentum, 1), data);
      },
      [&](std::size_t done) { shown(done, all); });

  std::vector<verdict> out(what.size());
  for (std::size_t k = 0; k < what.size(); ++k) {
    // The quickest to the target; of those that do not reach it the one that comes nearest.
    auto const worth = [&](std::size_t i) {
      auto const& r = sweep[k * grid + i];
      return std::array{r.reached, r.diverged ? papers::never : r.train_loss};
    };
    std::size_t best = 0;
    for (std::size_t i = 1; i < grid; ++i)
      if (worth(i) < worth(best)) best = i;
    out[k].what = what[k];
    out[k].rate = o.rates[best / o.momenta.size()];
    out[k].momentum = o.momenta[best % o.momenta.size()];
  }
  papers::each_on_all_cores(
      runs.size(),
      [&](std::size_t i) {
        auto const& v = out[i / seeds];
        runs[i] = papers::train(training_of(v.what, c, o, data, v.rate, v.momentum, 101 + i % seeds), data);
      },
      [&](std::size_t done) { shown(sweep.size() + done, all); });

  for (std::size_t k = 0; k < what.size(); ++k) {
    verdict& v = out[k];
    std::vector<double> seconds, samples, speed, bytes, busy, network, stragglers, accuracy;
    for (std::size_t s = 0; s < seeds; ++s) {
      auto const& r = runs[k * seeds + s];
      auto const size = static_cast<double>(data.train_size());
      seconds.push_back(r.reached);
      samples.push_back(std::isfinite(r.reached) ? r.epochs * size : papers::never);
      speed.push_back(r.epochs * size / r.seconds);
      bytes.push_back(static_cast<double>(r.bytes) / (r.epochs * size));
      accuracy.push_back(r.test.accuracy);
      double lifetime = 0, computed = 0, waited = 0, least = papers::never;
      std::size_t const first = v.what.server ? 1 : 0, workers = r.report.workers.size() - first;
      for (std::size_t w = first; w < r.report.workers.size(); ++w) {
        auto const& of = r.report.workers[w];
        lifetime += of.lifetime();
        computed += of.busy;
        waited += of.waiting;
        least = std::min(least, of.waiting);
      }
      if (!(lifetime > 0)) continue;
      busy.push_back(computed / lifetime);
      network.push_back(least * static_cast<double>(workers) / lifetime);
      stragglers.push_back((waited - least * static_cast<double>(workers)) / lifetime);
    }
    v.seconds = median(seconds);
    v.samples = median(samples);
    v.samples_per_second = median(speed);
    v.bytes_per_sample = median(bytes);
    v.utilisation = median(busy);
    v.network = median(network);
    v.stragglers = median(stragglers);
    v.accuracy = median(accuracy);
  }
  // Quickest first; what did not get there, by how fast it went through samples.
  std::ranges::stable_sort(out, [](verdict const& a, verdict const& b) {
    return std::array{a.seconds, -a.samples_per_second} < std::array{b.seconds, -b.samples_per_second};
  });
  return out;
}

}  // namespace example

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The training loop: what a trainer adds to its own code to use Limber with workers that come and go.

#include "model.hpp"

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <algorithm>
#include <cstdint>
#include <list>
#include <optional>
#include <vector>

namespace example {

/// A stretch of training with a constant set of workers.
struct generation {
  int workers = 1;
  limber::i64 end = 0;  ///< it ends with the first update that brings the samples trained on to this
};

/// All that a run of training depends on, besides model and data.
struct training {
  std::vector<generation> generations;
  limber::i64 epoch_size = 1;   ///< samples [0, epoch_size) are trained on
  limber::i64 per_worker = 16;  ///< samples a worker takes per update
  limber::i64 base_batch = 64;  ///< the batch that `base_lr` is for
  double base_lr = 0.1;
  double momentum = 0.9;
  limber::ramp_rule ramp{};  ///< how the rate follows the batch
  bool anneal = true;        ///< a cosine brings the rate to 0 over the whole run
  std::uint64_t seed = 1;

  [[nodiscard]] limber::i64 samples() const { return generations.back().end; }
};

/// An optimizer for `model` that exchanges gradients over `team`.
template <trainable Model>
[[nodiscard]] auto make_optimizer(Model& model, training const& run, limber::threads::communicator& team) {
  double const last = run.anneal ? 0 : 1;
  return limber::optimizer{
      model.parameters(),
      limber::sgd{.momentum = run.momentum},
      limber::dynamic_sgd(run.base_lr, static_cast<double>(run.base_batch)) *
          limber::cosine(limber::samples(static_cast<double>(run.samples())), last),
      limber::sync::allreduce{},
      team,
      {.batch = limber::per_worker{run.per_worker}, .epoch_size = run.epoch_size, .ramp = run.ramp}};
}

/// Trains a model on threads, from `start`, while the set of workers changes; returns what rank 0 holds.
///
/// A pool of threads stands for the machines of a cluster: each generation takes the first of them.
/// A worker that joins starts from any model: the first meeting gives it parameters, momentum and
/// progress. All workers end with the same bits.
///
/// @param watch called on one worker as watch(model, optimizer, bits) after every update, with the
///        mean loss of that worker's samples; must leave both as they are
/// @throws limber::error if the gradients stay infinite or NaN
template <trainable Model, class Watch>
[[nodiscard]] Model train(Model const& start, training const& run, Watch watch) {
  Model trained = start;
  int const most = std::ranges::max(run.generations, {}, &generation::workers).workers;
  auto const machine = [&](limber::threads::communicator& pool) {
    Model model = start;
    std::list<limber::threads::communicator> teams;  // they must outlive the optimizer
    std::optional<decltype(make_optimizer(model, run, pool))> optimizer;
    limber::sampler sampler(run.epoch_size, run.seed);

    for (auto const& g : run.generations) {
      bool const works = pool.rank() < g.workers;
      auto& team = teams.emplace_back(pool.split(works ? 1 : 0));
      if (works && optimizer) {
        optimizer->resize(team);
      } else if (works) {
        optimizer.emplace(make_optimizer(model, run, team));
      } else if (optimizer) {
        optimizer->finish();
        optimizer.reset();
      }
      if (!works) continue;

      // Joiners learn where training stands; where it stands is where the sampler stands.
      optimizer->handshake();
      limber::i64 const done = optimizer->now().samples;
      sampler.restore({run.epoch_size, run.seed, done / run.epoch_size, done % run.epoch_size});

      while (optimizer->now().samples < g.end) {
        auto const samples = sampler.take(optimizer->planned().share, team.rank());
        double const bits = samples.empty() ? 0 : model.gradient(samples);
        optimizer->step(static_cast<limber::i64>(samples.size()));
        if (team.rank() == 0) watch(model, *optimizer, bits);
      }
    }
    if (optimizer) optimizer->finish();
    if (pool.rank() == 0) trained = model;
  };
  // Idle machines wait for their turn: a whole generation may pass.
  limber::threads::run(most, machine, {.deadline = 3600});
  return trained;
}

}  // namespace example

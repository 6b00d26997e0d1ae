// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Runs one variant of a training on GPUs, and writes down what the main job's comparison needs.

#include "../language_model/experiment.hpp"
#include "deal.hpp"
#include "trainer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace example {

/// Of a model on `data`, which is a corpus or digits.
template <class Data>
[[nodiscard]] network_shape shape_of(Data const& data, int hidden) {
  if constexpr (std::is_same_v<Data, corpus>)
    return {language_model::width * static_cast<int>(corpus::context), hidden, language_model::symbols,
            static_cast<int>(corpus::context)};
  else
    return {data.features, hidden, digits::classes};
}

template <class Data>
[[nodiscard]] network_input input_of(Data const& data) {
  if constexpr (std::is_same_v<Data, corpus>)
    return {.text = {reinterpret_cast<std::uint8_t const*>(data.bytes.data()), data.bytes.size()}};
  else
    return {.pixels = data.pixels, .labels = data.labels};
}

/// What a GPU has to know of `run`.
[[nodiscard]] inline gpu_plan plan_of(training const& run, int ranks) {
  gpu_plan plan{.epoch_size = run.epoch_size,
                .micro_batch = run.per_worker,
                .most_samples = run.per_worker,
                .base_batch = run.base_batch,
                .samples = run.samples(),
                .base_lr = run.base_lr,
                .last = run.anneal ? 0.0 : 1.0,
                .momentum = run.momentum,
                .ramp = run.ramp};
  for (auto const& g : run.generations)
    plan.most_samples = std::max(plan.most_samples, shares(g.workers, run.per_worker, ranks)[0]);
  return plan;
}

/// ‖a − b‖ / ‖b‖, where a is the gradient of one micro-batch on the GPU and b the host's by other code. The
/// two add in different orders: some 1e-6 in fp32.
template <class Data, class Model>
[[nodiscard]] double gradient_difference(gpu_machine& machine, Data const& data, int hidden,
                                         Model const& start, training const& run, task const& what) {
  Model on_gpu = start, on_host = start;
  std::vector<limber::i64> samples;
  for (limber::i64 i = 0; i < std::min(run.per_worker, run.epoch_size); ++i) samples.push_back(i);
  gpu_trainer trainer(machine, shape_of(data, hidden), input_of(data), on_gpu.parameters(),
                      plan_of(run, machine.ranks()), what.probe);
  auto const a = on_gpu.parameters(), b = on_host.parameters();
  trainer.gradient(samples, a);
  (void)on_host.gradient(samples);
  double difference = 0, size = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    auto const sums = a[k].gradient.template as<float>(), means = b[k].gradient.template as<float>();
    for (std::size_t i = 0; i < sums.size(); ++i) {
      double const wanted = static_cast<double>(means[i]) * static_cast<double>(samples.size());
      difference += std::pow(static_cast<double>(sums[i]) - wanted, 2);
      size += wanted * wanted;
    }
  }
  return std::sqrt(difference / size);
}

/// All updates of `run`, of one of `ranks` processes. Calls look(generation, steps, samples) after each.
template <class Trainer, class Look>
void train_all(Trainer& trainer, training const& run, int rank, int ranks, Look look) {
  limber::sampler sampler(run.epoch_size, run.seed);
  limber::i64 steps = 0, samples = 0;
  for (auto const& g : run.generations) {
    auto const share = shares(g.workers, run.per_worker, ranks);
    limber::i64 const batch = run.per_worker * g.workers;
    while (samples < g.end) {
      samples += std::min(batch, sampler.remaining());
      trainer.update(sampler.take(share, rank), batch);
      look(g, ++steps, samples);
    }
    trainer.check();
  }
}

/// Trains from `start`; `trained` gets the parameters. Rank 0 alone looks at the loss, and shows it: the
/// others, and rank 0 between two looks, run ahead of their GPU.
/// @return what happened; on other ranks, nothing of use
template <class Data, class Model>
[[nodiscard]] variant_result run_on_gpu(gpu_machine& machine, std::string const& name, Data const& data,
                                        int hidden, Model const& start, Model& trained, training const& run,
                                        task const& what, live_line& line) {
  trained = start;
  gpu_trainer trainer(machine, shape_of(data, hidden), input_of(data), trained.parameters(),
                      plan_of(run, machine.ranks()), what.probe);
  std::vector<limber::i64> ends;
  for (auto const& g : run.generations) ends.push_back(g.end);
  trace record(ends, std::max<limber::i64>(1, run.samples() / 300));
  variant_result out{.name = name};
  double const begin = limber::steady_seconds();
  std::string last;

  auto const look = [&](generation const& g, limber::i64 steps, limber::i64 samples) {
    out.steps = steps;
    out.samples = samples;
    if (machine.rank() != 0) return;
    bool const ends_here = samples >= run.samples();
    bool const is_due = record.due(samples, steps, g.workers, g.workers * run.per_worker);
    if (!is_due && !ends_here && !line.due()) return;
    standing const at = trainer.now();
    if (is_due) record.add({samples, steps, g.workers, at.rate, trainer.probe()});
    last = describe(name, at.now, g.workers, at.rate, at.bits, what.unit, limber::steady_seconds() - begin);
    if (line.due() && !ends_here) line.show(last);
  };
  try {
    train_all(trainer, run, machine.rank(), machine.ranks(), look);
  } catch (limber::error const& e) {
    // A variant that diverges is a result; an engine that fails is not.
    if (e.where().engine != "cuda_trainer") throw;
    out.failure = e.what();
  }
  out.seconds = limber::steady_seconds() - begin;
  trainer.read(trained.parameters());
  if (machine.rank() != 0) return out;
  out.final = trained.evaluate(what.held_out);  // on the host, by other code
  constexpr double infinite = std::numeric_limits<double>::infinity();
  out.worst_spike = out.failure.empty() ? record.worst_spike() : infinite;
  if (!out.failure.empty() || !std::isfinite(out.final.bits)) out.final = {infinite, 0};
  out.points = record.points();
  out.resizes = record.resizes();
  line.finish(out.failure.empty() ? last : limber::text(name, " diverged: ", out.failure));
  return out;
}

}  // namespace example

// SPDX-License-Identifier: Apache-2.0

/// @file
/// The smallest whole program: a hand-written trainer and the ten lines that make it distributed.

#include "line.hpp"

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <cstdio>

namespace {

float train(limber::threads::communicator& comm) {
  example::line model;
  // [readme-begin]
  using namespace limber::literals;
  auto scale = limber::dynamic_sgd(/*base_lr=*/0.1, /*base_batch=*/64);  // follows the batch, no spike
  auto rate = scale * (limber::warmup(1_epochs) | limber::cosine(19_epochs));
  auto rule = limber::sgd{.momentum = 0.9, .nesterov = true};
  auto sync = limber::sync::allreduce{};  // one word: sync::local{.period = 16}

  limber::optimizer opt{
      model.parameters(), rule, rate, sync, comm, {.batch = limber::per_worker{32}, .epoch_size = 10'000}};
  if (comm.rank() == 0) std::puts(opt.explain(20_epochs).c_str());
  limber::sampler sampler(10'000, /*seed=*/1);
  while (sampler.epoch() < 20) {
    auto batch = sampler.take(opt.planned().share, comm.rank());  // this worker's share of the step
    model.backward(batch);                                        // your framework fills the gradients
    opt.step(static_cast<limber::i64>(batch.size()));             // weigh, reduce, update; 0 is legal
  }
  opt.finish();
  // [readme-end]
  if (comm.rank() == 0) std::printf("y = %.2f x %+.2f\n", model.w[0], model.w[1]);
  return model.error();
}

}  // namespace

int main() {
  float error = 1;
  limber::threads::run(4, [&](limber::threads::communicator& comm) {
    float const mine = train(comm);
    if (comm.rank() == 0) error = mine;
  });
  return error < 0.1f ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0

/// @file
/// A strategy of one's own, own_strategy.hpp, at work: two workers fit a line, each with its own half of the
/// points. Fails if the loss of their mean does not go down.

#include "own_strategy.hpp"

#include "line.hpp"

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <array>
#include <cstdio>
#include <vector>

namespace {

constexpr int workers = 2;
constexpr limber::i64 points = 1000;

// Mean squared distance of the model from y = 3x − 1 over all points.
double loss(example::line const& model) {
  double sum = 0;
  for (limber::i64 i = 0; i < points; ++i) {
    double const x = static_cast<double>(i % 100) / 100, y = model.w[0] * x + model.w[1];
    sum += (y - (3 * x - 1)) * (y - (3 * x - 1));
  }
  return sum / points;
}

// Trains for 6 epochs; returns the loss before the first and after the last.
std::array<double, 2> train(limber::threads::communicator& comm) {
  example::line model;
  limber::optimizer opt{model.parameters(),
                        limber::sgd{.momentum = 0.9},
                        0.05,
                        example::anchored{.period = 5, .pull = 0.8},
                        comm,
                        {.batch = limber::per_worker{20}, .epoch_size = points}};
  double const before = loss(model);
  std::vector<limber::i64> batch(20);
  for (int epoch = 1; epoch <= 6; ++epoch) {
    for (limber::i64 first = 0; first < points / workers; first += 20) {
      for (std::size_t k = 0; k < batch.size(); ++k)
        batch[k] = comm.rank() + workers * (first + static_cast<limber::i64>(k));
      model.backward(batch);
      opt.step(20);
    }
    double const now = opt.evaluate([&] { return loss(model); });
    if (comm.rank() == 0) std::printf("epoch %d  loss of the mean model %.5f\n", epoch, now);
  }
  opt.finish();
  return {before, loss(model)};
}

}  // namespace

int main() {
  std::array<double, 2> seen{};
  limber::threads::run(workers, [&](limber::threads::communicator& comm) {
    auto const mine = train(comm);
    if (comm.rank() == 0) seen = mine;
  });
  std::printf("loss %.5f before, %.5f after\n", seen[0], seen[1]);
  return seen[1] < 0.1 * seen[0] ? 0 : 1;
}

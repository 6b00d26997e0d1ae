// SPDX-License-Identifier: Apache-2.0
#include "train.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

double train(limber::threads::communicator& comm) {
  using namespace limber::literals;
  std::vector<float> w(1000, 0.f), gradient(1000);
  limber::optimizer opt{std::vector<limber::tensor>{{"w", w, gradient}},
                        limber::clipped{limber::adamw{.weight_decay = 0}, 100.0},
                        limber::linear_scaling{.base_lr = 0.05, .base_batch = 8} * limber::cosine(200_steps),
                        limber::sync::local{.period = 5},
                        comm,
                        {.batch = limber::per_worker{4}}};
  for (int t = 0; t < 200; ++t) {
    for (std::size_t k = 0; k < w.size(); ++k) gradient[k] = w[k] - 1;
    opt.step(4);
  }
  opt.finish();
  double worst = 0;
  for (float const x : w) worst = std::max(worst, std::abs(static_cast<double>(x) - 1));
  return worst;
}

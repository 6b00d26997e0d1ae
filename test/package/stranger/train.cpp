// SPDX-License-Identifier: Apache-2.0
#include "train.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

// A rule of the library, and one that only this program knows.
using theirs = limber::clipped<limber::adamw>;
struct mine : limber::sgd {};

}  // namespace

double train(limber::threads::communicator& comm) {
  using namespace limber::literals;
  std::vector<float> w(1000, 0.f), gradient(1000), v(10, 0.f), slope(10);
  limber::optimizer opt{
      limber::groups(limber::parameter_group{std::vector<limber::tensor>{{"w", w, gradient}},
                                             theirs{limber::adamw{.weight_decay = 0}, 100.0}},
                     limber::parameter_group{std::vector<limber::tensor>{{"v", v, slope}},
                                             mine{limber::sgd{.momentum = 0.5}}}),
      limber::linear_scaling{.base_lr = 0.05, .base_batch = 8} * limber::cosine(200_steps),
      limber::sync::diloco{.period = 5, .outer_lr = 1, .outer_momentum = 0.1},  // the merge has a rule, too
      comm,
      {.batch = limber::per_worker{4}}};
  for (int t = 0; t < 200; ++t) {
    for (std::size_t k = 0; k < w.size(); ++k) gradient[k] = w[k] - 1;
    for (std::size_t k = 0; k < v.size(); ++k) slope[k] = v[k] - 1;
    opt.step(4);
  }
  opt.finish();
  // The library finds them by the types that this program names.
  if (opt.rules().seen<theirs>().n != 1 || opt.rules().seen<mine>().n != 1) return 99;
  double worst = 0;
  for (float const x : w) worst = std::max(worst, std::abs(static_cast<double>(x) - 1));
  for (float const x : v) worst = std::max(worst, std::abs(static_cast<double>(x) - 1));
  return worst;
}

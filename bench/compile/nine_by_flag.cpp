// SPDX-License-Identifier: Apache-2.0
// Three rules by three strategies, chosen when the program runs.
#include <limber/limber.hpp>

#include <cstdlib>
#include <vector>

namespace {

limber::any_rule rule(int k) {
  if (k == 0) return limber::sgd{.momentum = 0.9};
  if (k == 1) return limber::adamw{};
  return limber::lamb{};
}

limber::sync::any_strategy strategy(int k) {
  if (k == 0) return limber::sync::allreduce{};
  if (k == 1) return limber::sync::local{.period = 8};
  return limber::sync::diloco{.period = 8};
}

}  // namespace

int main(int argc, char** argv) {
  int const r = argc > 1 ? std::atoi(argv[1]) : 0, s = argc > 2 ? std::atoi(argv[2]) : 0;
  std::vector<float> w(4, 1.f), gradient(4);
  limber::self comm;
  limber::optimizer opt{std::vector<limber::tensor>{{"w", w, gradient}},
                        rule(r),
                        0.01,
                        strategy(s),
                        comm,
                        {.batch = limber::fixed{1}}};
  for (int t = 0; t < 50; ++t) {
    gradient = w;
    opt.step(1);
  }
  opt.finish();
  return w[0] < 1 ? 0 : 1;
}

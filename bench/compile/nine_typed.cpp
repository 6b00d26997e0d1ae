// SPDX-License-Identifier: Apache-2.0
// The same nine by nine calls of the constructor, each with its own types.
#include <limber/limber.hpp>

#include <cstdlib>
#include <vector>

namespace {

std::vector<float> w(4, 1.f), gradient(4);
limber::self comm;

template <class R, class S>
limber::optimizer with(R const& rule, S const& strategy) {
  return {std::vector<limber::tensor>{{"w", w, gradient}},
          rule,
          0.01,
          strategy,
          comm,
          {.batch = limber::fixed{1}}};
}

template <class R>
limber::optimizer with(R const& rule, int s) {
  if (s == 0) return with(rule, limber::sync::allreduce{});
  if (s == 1) return with(rule, limber::sync::local{.period = 8});
  return with(rule, limber::sync::diloco{.period = 8});
}

}  // namespace

int main(int argc, char** argv) {
  int const r = argc > 1 ? std::atoi(argv[1]) : 0, s = argc > 2 ? std::atoi(argv[2]) : 0;
  limber::optimizer opt = r == 0   ? with(limber::sgd{.momentum = 0.9}, s)
                          : r == 1 ? with(limber::adamw{}, s)
                                   : with(limber::lamb{}, s);
  for (int t = 0; t < 50; ++t) {
    gradient = w;
    opt.step(1);
  }
  opt.finish();
  return w[0] < 1 ? 0 : 1;
}

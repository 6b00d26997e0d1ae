// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Training of the toy model under a strategy, with samples dealt unevenly.

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <support/toy_model.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace limber::testing {

/// Samples of rank r at call t.
using dealing = std::vector<std::vector<i64>>;

/// Trains `calls` calls; rank r gets deal[t % size][r] samples. Returns every rank's model.
template <class T, class R, class S>
std::vector<std::vector<T>> train(int workers, S strategy, R const& rule, dealing const& deal, int calls = 24,
                                  bool finish = true) {
  std::vector<std::vector<T>> out(static_cast<std::size_t>(workers));
  threads::run(workers, [&](threads::communicator& comm) {
    toy_model<T> m;
    options o;
    o.batch = per_worker{8};
    o.epoch_size = 1000;
    optimizer opt{m.parameters(), rule, linear_scaling{.base_lr = 0.02, .base_batch = 24} * warmup(4_steps),
                  strategy,       comm, o};
    i64 first = 0;
    for (int t = 0; t < calls; ++t) {
      auto const& now = deal[static_cast<std::size_t>(t) % deal.size()];
      for (int r = 0; r < workers; first += now[static_cast<std::size_t>(r++)])
        if (r == comm.rank()) m.backward(run_of(first, now[static_cast<std::size_t>(r)]));
      opt.step(now[static_cast<std::size_t>(comm.rank())]);
    }
    if (finish) opt.finish();
    out[static_cast<std::size_t>(comm.rank())] = m.all();
  });
  return out;
}

inline dealing const even{{8, 8, 8}};
inline dealing const constant_shares{{2, 6, 16}};
inline dealing const changing{{2, 6, 16}, {10, 0, 3}, {1, 20, 5}};

inline constexpr sgd nesterov{.momentum = 0.9, .weight_decay = 1e-3, .nesterov = true};

template <class T>
inline constexpr double bound = std::is_same_v<T, float> ? 1e-6 : 1e-12;

}  // namespace limber::testing

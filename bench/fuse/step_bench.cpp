// SPDX-License-Identifier: Apache-2.0

/// @file
/// One update of a list of tensors, from gradients to parameters, with finite test and zeroed gradients.
///
///     host-1/sgd/f32/flat/limber     threads, rule, storage, list, who does it
///
/// Bytes per element that each task must move. Every task reads the gradient for its norm, because a step
/// with an infinite or NaN gradient must not be taken; updates zero the gradient in the same pass.
///
///     task                    read                        written                sum
///     sgd with momentum, f32  g (norm), p g v      16     p g v          12      28
///     clipped sgd, f32        the same             16                    12      28
///     adamw, f32              g (norm), p g m v    20     p g m v        16      36
///     lamb, f32               g (norm), p g m v,          g m v, p g             48
///                             p d                  28                    20
///     adamw, master of bf16   g (norm), g w m v    16     p g w m v      16      32
///
/// Rows     limber         updater::step<true>
///          norm_and_loop  a plain norm, then one loop per tensor: the same task by hand (peer)
///          eigen          the same task as one array expression per line of the formula (peer)
///          loop           the loop alone, without norm and finite test (less; its GB/s is of the whole task)

#include <limber/fuse/updater.hpp>
#include <limber/rule/rules.hpp>

#include <benchmark/benchmark.h>
#include <fuse/lists.hpp>
#include <fuse/peers.hpp>
#include <support/program.hpp>

#include <cmath>
#include <memory>
#include <numeric>

#if __has_include(<Eigen/Core>)
#include <Eigen/Core>
#define LIMBER_BENCH_EIGEN 1
#endif

namespace limber::bench {
namespace {

constexpr settings with{};
constexpr double max_norm = 0.5;

/// The arrays of one case: parameters and gradients of type S, three slots of float at most.
template <class S>
struct arrays {
  std::span<S> p, g;
  std::array<std::span<float>, 3> slot;
  arrays(shapes const& s, int slots) {
    auto& memory = arena::shared();
    p = memory.take<S>(s.extent);
    g = memory.take<S>(s.extent);
    fill(p);
    fill(g);
    for (int k = 0; k < slots; ++k) {
      auto& array = slot[static_cast<std::size_t>(k)];
      array = memory.take<float>(s.extent);
      std::ranges::fill(array, 0.f);
    }
  }
};

/// Runs one(t) for t = 1, 2, …; renews the gradient before moments decay to denormal numbers.
template <class S, class One>
void loop(benchmark::State& state, std::span<S> gradient, One const& one) {
  i64 t = 0;
  for (auto _ : state) {
    one(++t);
    benchmark::ClobberMemory();
    if (t % 64 == 0) {
      state.PauseTiming();
      fill(gradient);
      state.ResumeTiming();
    }
  }
}

template <class S, class R>
auto limber_step(std::shared_ptr<shapes const> s, int threads, R rule) {
  return [=](benchmark::State& state) {
    arrays<S> a(*s, 0);
    any_executor on(arena_host{threads});
    updater u(s->views(a.p));
    for (std::size_t t = 0; t < s->lengths.size(); ++t) u.assign<arena_host>(static_cast<i64>(t), rule);
    u.allocate(on);
    u.seed(on);
    auto const gradients = s->views(a.g);
    loop(state, a.g, [&](i64) {
      if (!u.step(on, gradients, with.rate, 1, true).applied) state.SkipWithError("not finite");
    });
  };
}

/// √Σ g² by all threads.
template <class S>
double root_of_all(shapes const& s, int threads, std::span<S> g) {
  std::vector<double> sums(static_cast<std::size_t>(threads) * 8);
  s.split(threads, [&](std::size_t who, std::size_t, i64 first, i64 n) {
    sums[who * 8] += norm(g.data() + first, n);
  });
  return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
}

/// A step by hand: update(stretch start, count, t, ‖g‖).
template <class S, class Update>
auto by_hand(std::shared_ptr<shapes const> s, int threads, int slots, bool with_norm, Update update) {
  return [=](benchmark::State& state) {
    arrays<S> a(*s, slots);
    loop(state, a.g, [&](i64 t) {
      double const root = with_norm ? root_of_all(*s, threads, a.g) : 1;
      if (!std::isfinite(root)) return state.SkipWithError("not finite");
      s->split(threads, [&](std::size_t, std::size_t, i64 first, i64 n) { update(a, first, n, t, root); });
    });
  };
}

auto lamb_by_hand(std::shared_ptr<shapes const> s, int threads) {
  return [=](benchmark::State& state) {
    arrays<float> a(*s, 2);
    std::size_t const tensors = s->lengths.size();
    std::vector<lamb_sums> sums(tensors * static_cast<std::size_t>(threads));
    std::vector<float> step(tensors);
    auto* const p = a.p.data();
    auto* const g = a.g.data();
    loop(state, a.g, [&](i64 k) {
      if (!std::isfinite(root_of_all(*s, threads, a.g))) return state.SkipWithError("not finite");
      adam_step const moments(with, k);
      std::ranges::fill(sums, lamb_sums{});
      s->split(threads, [&](std::size_t who, std::size_t t, i64 first, i64 n) {
        sums[who * tensors + t] = fused_lamb_direction(moments, n, p + first, g + first,
                                                       a.slot[0].data() + first, a.slot[1].data() + first);
      });
      for (std::size_t t = 0; t < tensors; ++t) {
        lamb_sums all;
        for (std::size_t who = 0; who < static_cast<std::size_t>(threads); ++who) {
          all.p += sums[who * tensors + t].p;
          all.d += sums[who * tensors + t].d;
        }
        step[t] = with.rate * static_cast<float>(all.d > 0 && all.p > 0 ? std::sqrt(all.p / all.d) : 1);
      }
      s->split(threads, [&](std::size_t, std::size_t t, i64 first, i64 n) {
        fused_lamb_apply(step[t], n, p + first, g + first);
      });
    });
  };
}

#if defined(LIMBER_BENCH_EIGEN)
using array_map = Eigen::Map<Eigen::ArrayXf>;

/// A step as array expressions: update(maps p, g, slots, t, ‖g‖) for each tensor.
template <class Update>
auto by_eigen(std::shared_ptr<shapes const> s, int slots, Update update) {
  return [=](benchmark::State& state) {
    arrays<float> a(*s, slots);
    auto map = [&](std::span<float> x, std::size_t t) {
      return array_map(x.data() + s->starts[t], s->lengths[t]);
    };
    loop(state, a.g, [&](i64 k) {
      double sum = 0;
      for (std::size_t t = 0; t < s->lengths.size(); ++t)
        sum += static_cast<double>(map(a.g, t).square().sum());
      if (!std::isfinite(sum)) return state.SkipWithError("not finite");
      for (std::size_t t = 0; t < s->lengths.size(); ++t) {
        array_map p = map(a.p, t), g = map(a.g, t), m = map(a.slot[0], t),
                  v = map(a.slot[slots > 1 ? 1 : 0], t);
        update(p, g, m, v, k, std::sqrt(sum));
        g.setZero();
      }
    });
  };
}

void eigen_sgd(array_map& p, array_map& g, array_map& v, array_map&, i64, double) {
  v = with.momentum * v + g;
  p -= with.rate * v;
}
void eigen_clipped_sgd(array_map& p, array_map& g, array_map& v, array_map& w, i64 t, double root) {
  g *= static_cast<float>(std::min(1.0, max_norm / root));
  eigen_sgd(p, g, v, w, t, root);
}
void eigen_adamw(array_map& p, array_map& g, array_map& m, array_map& v, i64 t, double) {
  adam_step const a(with, t);
  m = with.beta1 * m + (1 - with.beta1) * g;
  v = with.beta2 * v + (1 - with.beta2) * g.square();
  p *= 1 - with.rate * with.decay;
  p -= a.step * m / (v.sqrt() * a.rsqrt_bias2 + with.eps);
}
void eigen_lamb(array_map& p, array_map& g, array_map& m, array_map& v, i64 t, double) {
  adam_step const a(with, t);
  m = with.beta1 * m + (1 - with.beta1) * g;
  v = with.beta2 * v + (1 - with.beta2) * g.square();
  g = a.step / with.rate * m / (v.sqrt() * a.rsqrt_bias2 + with.eps) + with.decay * p;
  float const norm_p = std::sqrt(p.square().sum()), norm_d = std::sqrt(g.square().sum());
  p -= with.rate * (norm_p > 0 && norm_d > 0 ? norm_p / norm_d : 1) * g;
}
#endif

/// All rows of one list.
void add_list(program& all, std::shared_ptr<shapes const> s, int threads) {
  i64 const n = s->elements;
  auto describe = [&](std::string const& rule, i64 read, i64 written, i64 memory) {
    return task{.name = text("host-", threads, "/", rule, "/", s->name),
                .read = read * n,
                .written = written * n,
                .memory = memory * s->extent,
                .threads = threads};
  };
  auto sgd_loop = [](auto& a, i64 first, i64 k, i64, double) {
    fused_sgd(with, 1, k, a.p.data() + first, a.g.data() + first, a.slot[0].data() + first);
  };
  auto clipped_loop = [](auto& a, i64 first, i64 k, i64, double root) {
    fused_sgd(with, static_cast<float>(std::min(1.0, max_norm / root)), k, a.p.data() + first,
              a.g.data() + first, a.slot[0].data() + first);
  };
  auto adamw_loop = [](auto& a, i64 first, i64 k, i64 t, double) {
    fused_adamw(adam_step(with, t), k, a.p.data() + first, a.g.data() + first, a.slot[0].data() + first,
                a.slot[1].data() + first);
  };
  auto master_loop = [](auto& a, i64 first, i64 k, i64 t, double) {
    fused_master_adamw(adam_step(with, t), k, a.p.data() + first, a.g.data() + first,
                       a.slot[0].data() + first, a.slot[1].data() + first, a.slot[2].data() + first);
  };
  task const sgd_task = describe("sgd/f32", 16, 12, 12),
             clipped_task = describe("clipped-sgd/f32", 16, 12, 12),
             adamw_task = describe("adamw/f32", 20, 16, 16), lamb_task = describe("lamb/f32", 28, 20, 16),
             master_task = describe("master-adamw/bf16", 16, 16, 16);
  sgd const momentum{.momentum = 0.9};

  all.add(sgd_task, "limber", role::subject, limber_step<float>(s, threads, momentum));
  all.add(sgd_task, "norm_and_loop", role::peer, by_hand<float>(s, threads, 1, true, sgd_loop));
  all.add(adamw_task, "limber", role::subject, limber_step<float>(s, threads, adamw{}));
  all.add(adamw_task, "norm_and_loop", role::peer, by_hand<float>(s, threads, 2, true, adamw_loop));
  all.add(clipped_task, "limber", role::subject, limber_step<float>(s, threads, clipped{momentum, max_norm}));
  all.add(clipped_task, "norm_and_loop", role::peer, by_hand<float>(s, threads, 1, true, clipped_loop));
  all.add(lamb_task, "limber", role::subject, limber_step<float>(s, threads, lamb{}));
  all.add(lamb_task, "norm_and_loop", role::peer, lamb_by_hand(s, threads));
  all.add(master_task, "limber", role::subject, limber_step<bf16>(s, threads, master{adamw{}}));
  all.add(master_task, "norm_and_loop", role::peer, by_hand<bf16>(s, threads, 3, true, master_loop));
  if (threads > 1) return;
#if defined(LIMBER_BENCH_EIGEN)
  all.add(sgd_task, "eigen", role::peer, by_eigen(s, 1, eigen_sgd));
  all.add(adamw_task, "eigen", role::peer, by_eigen(s, 2, eigen_adamw));
  all.add(clipped_task, "eigen", role::peer, by_eigen(s, 1, eigen_clipped_sgd));
  all.add(lamb_task, "eigen", role::peer, by_eigen(s, 2, eigen_lamb));
#endif
  all.add(sgd_task, "loop", role::part, by_hand<float>(s, threads, 1, false, sgd_loop));
  all.add(adamw_task, "loop", role::part, by_hand<float>(s, threads, 2, false, adamw_loop));
}

}  // namespace
}  // namespace limber::bench

int main(int argc, char** argv) {
  limber::bench::program all(argc, argv);
  for (auto& s : limber::bench::all_shapes(all.quick())) {
    auto const shared = std::make_shared<limber::bench::shapes const>(std::move(s));
    limber::bench::add_list(all, shared, 1);
#if defined(_OPENMP)
    limber::bench::add_list(all, shared, 2);
#endif
  }
  return all.run();
}

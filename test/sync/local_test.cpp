// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize
#define BOOST_TEST_MODULE limber.sync.local
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/dealing.hpp>
#include <support/toy_model.hpp>

#include <limits>
#include <tuple>

using namespace limber;
using namespace limber::testing;

using scalars = std::tuple<float, double>;

BOOST_AUTO_TEST_CASE_TEMPLATE(averaging_after_every_step_is_all_reduce_for_rules_linear_in_the_gradient, T,
                              scalars) {
  for (auto const& deal : {even, constant_shares}) {
    auto const local = train<T>(3, sync::local{.period = 1}, nesterov, deal);
    auto const all = train<T>(3, sync::allreduce{}, nesterov, deal);
    BOOST_TEST(distance(local[0], all[0]) < bound<T>);
    BOOST_TEST(same_bits(local[0], local[2]));
  }
  auto const averaged = train<T>(3, sync::local{1, sync::moments::average}, sgd{.momentum = 0.9}, changing);
  auto const all = train<T>(3, sync::allreduce{}, sgd{.momentum = 0.9}, changing);
  BOOST_TEST(distance(averaged[0], all[0]) < bound<T>);
}

BOOST_AUTO_TEST_CASE(it_is_not_for_rules_that_are_not_linear_or_shares_that_change) {
  auto differs = [](auto const& rule, dealing const& deal) {
    return distance(train<double>(3, sync::local{.period = 1}, rule, deal)[0],
                    train<double>(3, sync::allreduce{}, rule, deal)[0]);
  };
  BOOST_TEST(differs(adamw{}, even) > 1e-6);
  BOOST_TEST(differs(clipped{sgd{.momentum = 0.9}, 0.5}, even) > 1e-6);
  BOOST_TEST(differs(sgd{.momentum = 0.9}, changing) > 1e-6);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_worker_is_the_plain_rule_whatever_the_period, T, scalars) {
  for (i64 period : {1, 3, 7}) {
    auto const local = train<T>(1, sync::local{.period = period}, nesterov, {{8}});
    auto const plain = train<T>(1, sync::allreduce{}, nesterov, {{8}});
    BOOST_TEST(distance(local[0], plain[0]) < bound<T>);
  }
}

// The formula, typed out: each worker's own SGD with momentum, models averaged by samples every H calls.
BOOST_AUTO_TEST_CASE(it_follows_the_paper) {
  constexpr int workers = 3, calls = 20;
  constexpr i64 period = 4;
  toy_model<double> m[workers];
  std::vector<double> v[workers];
  double n[workers] = {};
  i64 first = 0;
  for (int t = 0; t < calls; ++t) {
    double const rate = 0.02 * std::min(1.0, t / 4.0);
    auto const& now = changing[static_cast<std::size_t>(t) % changing.size()];
    for (int r = 0; r < workers; first += now[static_cast<std::size_t>(r++)]) {
      auto const count = now[static_cast<std::size_t>(r)];
      if (count == 0) continue;
      m[r].backward(run_of(first, count));
      n[r] += static_cast<double>(count);
      v[r].resize(toy_model<double>::features + 1);
      for (std::size_t k = 0; k < v[r].size(); ++k) {
        bool const bias = k + 1 == v[r].size();
        double& w = bias ? m[r].b[0] : m[r].w[k];
        double& g = bias ? m[r].gb[0] : m[r].gw[k];
        v[r][k] = 0.9 * v[r][k] + g;
        w -= rate * v[r][k];
        g = 0;
      }
    }
    if ((t + 1) % period != 0) continue;
    double const total = n[0] + n[1] + n[2];
    for (std::size_t k = 0; k <= toy_model<double>::features; ++k) {
      auto at = [&](int r) -> double& { return k == toy_model<double>::features ? m[r].b[0] : m[r].w[k]; };
      double mean = 0;
      for (int r = 0; r < workers; ++r) mean += n[r] / total * at(r);
      for (int r = 0; r < workers; ++r) at(r) = mean;
    }
    for (double& x : n) x = 0;
  }
  auto const library =
      train<double>(workers, sync::local{.period = period}, sgd{.momentum = 0.9}, changing, calls);
  BOOST_TEST(distance(library[0], m[0].all()) < 1e-12);
}

BOOST_AUTO_TEST_CASE(workers_differ_inside_a_round_and_agree_after_finish) {
  auto const open = train<float>(3, sync::local{.period = 5}, nesterov, even, 23, false);
  BOOST_TEST(!same_bits(open[0], open[1]));
  auto const closed = train<float>(3, sync::local{.period = 5}, nesterov, even, 23, true);
  BOOST_TEST(same_bits(closed[0], closed[1]));
  BOOST_TEST(same_bits(closed[0], closed[2]));
}

BOOST_AUTO_TEST_CASE(what_happens_to_momentum_is_a_choice) {
  auto with = [](i64 period, sync::moments m, dealing const& deal) {
    return train<double>(3, sync::local{period, m}, sgd{.momentum = 0.9}, deal)[0];
  };
  using enum sync::moments;
  BOOST_TEST(distance(with(4, keep, even), with(4, reset, even)) > 1e-6);
  BOOST_TEST(distance(with(4, keep, even), with(4, average, even)) > 1e-6);
  // Merged after every step with constant weights, the mean model is linear in the histories.
  BOOST_TEST(distance(with(1, keep, constant_shares), with(1, average, constant_shares)) < 1e-12);
  BOOST_TEST(distance(with(1, keep, changing), with(1, average, changing)) > 1e-6);
}

// With bf16 parameters the fp32 master is what crosses: averaging the parameters would be undone by the
// next step.
BOOST_AUTO_TEST_CASE(masters_are_merged_and_stay_merged) {
  threads::run(2, [](threads::communicator& comm) {
    std::vector<bf16> w(100, bf16(1.f));
    std::vector<float> g(100);
    optimizer opt{std::vector<tensor>{{"w", w, g}}, master{descent{}}, 1.0, sync::local{.period = 3}, comm};
    for (int t = 0; t < 9; ++t) {
      std::ranges::fill(g, comm.rank() == 0 ? 1e-4f : 3e-4f);  // far below a bf16 step of 2^-8
      opt.step(1);
      // 1 - 2e-4 t in fp32, the same on both ranks after a merge.
      if ((t + 1) % 3 == 0) {
        LIMBER_CHECK(static_cast<float>(w[0]) ==
                     static_cast<float>(bf16(1 - 2e-4f * static_cast<float>(t + 1))));
        opt.visit([&](state_piece const& p) {
          if (p.name.find("slot0") != std::string::npos)
            LIMBER_CHECK(std::abs(p.data.as<float>()[0] - (1 - 2e-4f * static_cast<float>(t + 1))) < 1e-6f);
        });
      }
    }
  });
}

BOOST_AUTO_TEST_CASE(moving_averages_are_merged_like_the_model) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<double> m;
    optimizer opt{m.parameters(), ema{sgd{}, 0.5}, 0.01, sync::local{.period = 2}, comm};
    for (int t = 0; t < 4; ++t) {
      m.backward(run_of(t * 30 + comm.rank() * 10, 4 + comm.rank()));
      opt.step(4 + comm.rank());
    }
    std::vector<double> average;
    opt.visit([&](state_piece const& p) {
      if (p.name.find("slot0") != std::string::npos)
        for (double x : p.data.as<double>()) average.push_back(x);
    });
    std::vector<double> all(3 * average.size());
    comm.all_gather(const_view(average), view(all)).wait();
    for (std::size_t k = 0; k < all.size(); ++k) LIMBER_CHECK(all[k] == average[k % average.size()]);
    LIMBER_CHECK(average[0] != m.b[0]);
  });
}

BOOST_AUTO_TEST_CASE(a_rank_with_a_bad_gradient_skips_its_own_update_and_the_samples) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), adamw{}, 0.01, sync::local{.period = 4}, comm, {.batch = per_worker{8}}};
    for (int t = 0; t < 4; ++t) {
      m.backward(run_of(t * 24 + comm.rank() * 8, 8));
      bool const bad = comm.rank() == 1 && t == 1;
      if (bad) m.gw[3] = std::numeric_limits<float>::quiet_NaN();
      auto const before = m.all();
      auto const& did = opt.step(8);
      LIMBER_CHECK(did.skipped == bad);
      LIMBER_CHECK(did.culprit == (bad ? "w" : ""));
      LIMBER_CHECK(did.culprit_rank == (bad ? 1 : -1));
      if (bad) LIMBER_CHECK(same_bits(m.all(), before));
    }
    // Progress is agreed: 4 steps for all; samples are corrected at the merge, 8 were dropped.
    LIMBER_CHECK(opt.now().steps == 4);
    LIMBER_CHECK(opt.now().samples == 4 * 24 - 8);
    LIMBER_CHECK(opt.rules().seen<adamw>()[0] == (comm.rank() == 1 ? 3 : 4));
    for (float x : m.all()) LIMBER_CHECK(std::isfinite(x));
  });
}

BOOST_AUTO_TEST_CASE(a_rank_whose_model_broke_sends_nothing_and_takes_the_others_mean) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{}, 0.01, sync::local{.period = 2}, comm, {.batch = per_worker{8}}};
    for (int t = 0; t < 2; ++t) {
      m.backward(run_of(t * 24 + comm.rank() * 8, 8));
      if (t == 1 && comm.rank() == 2) m.w[0] = std::numeric_limits<float>::infinity();
      opt.step(8);
    }
    for (float x : m.all()) LIMBER_CHECK(std::isfinite(x));
    LIMBER_CHECK(opt.now().samples == 2 * 16);
  });
}

BOOST_AUTO_TEST_CASE(a_rank_without_samples_makes_no_local_update) {
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9, .weight_decay = 0.5}, 0.1, sync::local{.period = 100},
                  comm};
    m.backward(run_of(0, 4));
    opt.step(4);
    auto const before = m.all();
    if (comm.rank() == 0) m.backward(run_of(4, 4));
    opt.step(comm.rank() == 0 ? 4 : 0);
    LIMBER_CHECK(same_bits(m.all(), before) == (comm.rank() == 1));
  });
}

BOOST_AUTO_TEST_CASE(evaluation_sees_the_mean_model_and_changes_nothing) {
  auto run = [](bool evaluate) {
    std::vector<std::vector<float>> out(3);
    threads::run(3, [&](threads::communicator& comm) {
      toy_model<float> m;
      optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 0.02, sync::local{.period = 4}, comm};
      for (int t = 0; t < 10; ++t) {
        m.backward(run_of(t * 24 + comm.rank() * 8, 8));
        opt.step(8);
        if (!evaluate) continue;
        std::vector<float> const own = m.all();
        std::vector<float> all(3 * own.size());
        comm.all_gather(const_view(own), view(all)).wait();
        double const gap = opt.evaluate([&] {
          double worst = 0;
          auto const seen = m.all();
          for (std::size_t k = 0; k < seen.size(); ++k) {
            double const mean = (static_cast<double>(all[k]) + static_cast<double>(all[k + own.size()]) +
                                 static_cast<double>(all[k + 2 * own.size()])) /
                                3;
            worst = std::max(worst, std::abs(static_cast<double>(seen[k]) - mean));
          }
          return worst;
        });
        LIMBER_CHECK(gap < 1e-6);
        LIMBER_CHECK(same_bits(m.all(), own));
      }
      out[static_cast<std::size_t>(comm.rank())] = m.all();
    });
    return out;
  };
  auto const with = run(true), without = run(false);
  for (std::size_t r = 0; r < 3; ++r) BOOST_TEST(same_bits(with[r], without[r]));
}

// Communication is what local SGD saves: one model every H calls, nothing in between.
namespace {
template <class C>
struct counting {
  C& under;
  i64 calls = 0;
  [[nodiscard]] int rank() const { return under.rank(); }
  [[nodiscard]] int size() const { return under.size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return ++calls, under.all_reduce(in, out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return under.reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return under.all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return under.broadcast(data, root); }
  void barrier() { under.barrier(); }
};
}  // namespace

BOOST_AUTO_TEST_CASE(models_cross_every_period_calls_and_nothing_crosses_in_between) {
  threads::run(2, [](threads::communicator& comm) {
    counting<threads::communicator> counted{comm};
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{}, 0.02, sync::local{.period = 4}, counted};
    for (int t = 0; t < 12; ++t) {
      m.backward(run_of(t * 8, 8));
      auto const before = counted.calls;
      opt.step(8);
      LIMBER_CHECK(counted.calls - before == ((t + 1) % 4 == 0 ? 2 : 0));  // one bucket, one control
    }
  });
}

BOOST_AUTO_TEST_CASE(a_master_that_was_frozen_inside_a_round_is_published_all_the_same) {
  threads::run(2, [](threads::communicator& comm) {
    std::vector<bf16> w(10, bf16(1.f));
    std::vector<float> g(10);
    optimizer opt{std::vector<tensor>{{"w", w, g}}, master{sgd{}}, 0.1, sync::local{.period = 4}, comm};
    for (int t = 0; t < 4; ++t) {
      if (t == 2) opt.freeze("w");
      std::ranges::fill(g, comm.rank() == 0 ? 1.f : 0.5f);
      opt.step(1);
    }
    LIMBER_CHECK(w[0].bits == bf16(1 - 0.15f).bits);
  });
}

// Lookahead: gradients cross all, the slow weights are each rank's own arithmetic on the same numbers.
BOOST_AUTO_TEST_CASE(a_merge_with_oneself_stays_alike_when_a_rank_has_no_samples) {
  struct lookahead {
    [[nodiscard]] auto parts() const {
      return sync::exchange(sync::gradients(sync::every{1}, sync::everyone{}),
                            sync::merge(sync::every{2}, sync::alone{}, descent{}, 0.5));
    }
  };
  std::vector<std::vector<float>> end(2);
  threads::run(2, [&](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{}, 0.01, lookahead{}, comm};
    for (int t = 0; t < 4; ++t) {
      i64 const n = comm.rank() == 0 ? 8 : 0;
      m.backward(run_of(8 * t, n));
      opt.step(n);
    }
    end[static_cast<std::size_t>(comm.rank())] = m.all();
  });
  BOOST_TEST(same_bits(end[0], end[1]));
  BOOST_TEST(!same_bits(end[0], toy_model<float>{}.all()));
}

BOOST_AUTO_TEST_CASE(accumulation_on_ones_own_counts_every_call) {
  struct accumulating {
    [[nodiscard]] auto parts() const {
      return sync::exchange(sync::gradients(sync::every{2}, sync::alone{}),
                            sync::merge(sync::every{3}, sync::everyone{}));
    }
  };
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{}, 0.01, accumulating{}, comm, {.batch = per_worker{8}}};
    for (int t = 1; t <= 12; ++t) {
      m.backward(run_of(8 * t, 8));
      opt.step(8);
      LIMBER_CHECK(opt.now().samples == t / 2 * 2 * 16);
      LIMBER_CHECK(opt.now().steps == t / 2);
    }
  });
}

BOOST_AUTO_TEST_CASE(evaluation_averages_buffers_too_and_puts_them_back) {
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    std::vector<double> mean{0};
    std::vector<tensor> const b{{"running_mean", mean}};
    optimizer opt{groups(parameter_group{m.parameters(), sgd{}}, buffers{b}), 0.01, sync::local{.period = 4},
                  comm};
    m.backward(run_of(0, 8));
    opt.step(8);
    mean[0] = comm.rank() == 0 ? 1 : 3;
    opt.evaluate([&] { LIMBER_CHECK(mean[0] == 2); });
    LIMBER_CHECK(mean[0] == (comm.rank() == 0 ? 1 : 3));
  });
}

// The anchor is kept in fp32 where parameters are bf16: meeting again must not round it.
BOOST_AUTO_TEST_CASE(meeting_again_after_a_merge_keeps_the_anchor) {
  struct slow {
    [[nodiscard]] auto parts() const {
      return sync::exchange(sync::gradients(sync::every{1}, sync::alone{}),
                            sync::merge(sync::every{2}, sync::everyone{}, descent{}, 0.02));
    }
  };
  auto run = [](bool again) {
    std::vector<float> end;
    threads::run(2, [&](threads::communicator& comm) {
      std::vector<bf16> w(10, bf16(1.f));
      std::vector<float> g(10);
      optimizer opt{std::vector<tensor>{{"w", w, g}}, sgd{}, 0.1, slow{}, comm};
      for (int t = 0; t < 40; ++t) {
        std::ranges::fill(g, 0.25f);
        opt.step(1);
        if (again && t % 2 == 1) opt.resize(comm);
      }
      if (comm.rank() == 0)
        opt.visit([&](state_piece const& p) {
          if (p.name == "sync/merge0/anchor/w") end = {p.data.as<float>().begin(), p.data.as<float>().end()};
        });
    });
    return end;
  };
  auto const straight = run(false);
  BOOST_TEST(same_bits(straight, run(true)));
  BOOST_TEST(straight[0] < 1.f);
}

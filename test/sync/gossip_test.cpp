// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// sanitizers: address
#define BOOST_TEST_MODULE limber.sync.gossip
#include <limber/comm/threads.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/dealing.hpp>
#include <support/toy_model.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <random>
#include <tuple>
#include <vector>

using namespace limber;
using namespace limber::testing;
using sync::gossip_how;

using scalars = std::tuple<float, double>;
using emulated = gpu::basic_executor<gpu::emulator>;

namespace {

constexpr gossip_how ways[]{gossip_how::matching, gossip_how::pull, gossip_how::push};

// A collective whose send returns when the receiver is at it, as large messages of real engines do.
struct rendezvous : threads::communicator {
  explicit rendezvous(threads::communicator c) : threads::communicator(std::move(c)) {}
  void send(const_tensor_view in, int peer) {
    threads::communicator::send(in, peer);
    std::array<i64, 1> seen{};
    threads::communicator::recv(view(seen), peer);
  }
  void recv(tensor_view out, int peer) {
    threads::communicator::recv(out, peer);
    std::array<i64, 1> const seen{1};
    threads::communicator::send(const_view(seen), peer);
  }
};

// One number per rank after a round in exact arithmetic: what a round does to every element of the models.
std::vector<double> mixed(std::vector<double> const& x, std::vector<sync::crossing> const& round) {
  std::vector<double> sum = x;
  std::vector<int> parts(x.size(), 1);
  for (auto const& m : round) {
    sum[static_cast<std::size_t>(m.to)] += x[static_cast<std::size_t>(m.from)];
    ++parts[static_cast<std::size_t>(m.to)];
  }
  for (std::size_t r = 0; r < sum.size(); ++r) sum[r] /= parts[r];
  return sum;
}

// Mean of one number per rank, and the mean square of the distances from it.
struct consensus {
  double mean = 0;
  double variance = 0;
};
consensus consensus_of(std::vector<double> const& x) {
  consensus c;
  auto const n = static_cast<double>(x.size());
  for (double const v : x) c.mean += v / n;
  for (double const v : x) c.variance += (v - c.mean) * (v - c.mean) / n;
  return c;
}

double start_of(std::size_t rank, std::size_t k) {
  return toy_model<double>::uniform(static_cast<i64>(k), 1000 + static_cast<i64>(rank));
}

// Starts every rank from a model of its own and makes `calls` calls at rate 0; returns every rank's model.
template <class Strategy>
std::vector<std::vector<double>> at_rest(int workers, Strategy const& strategy, int calls,
                                         std::vector<std::vector<double>>* evaluated = nullptr) {
  std::vector<std::vector<double>> out(static_cast<std::size_t>(workers));
  if (evaluated != nullptr) evaluated->resize(out.size());
  threads::run(workers, [&](threads::communicator& engine) {
    rendezvous comm(std::move(engine));
    auto const r = static_cast<std::size_t>(comm.rank());
    toy_model<double> m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 0.0, strategy, comm, {.batch = per_worker{4}}};
    opt.handshake();
    for (std::size_t k = 0; k < m.w.size(); ++k) m.w[k] = start_of(r, k);
    for (int call = 0; call < calls; ++call) {
      m.backward(run_of(0, 4));
      opt.step(comm.rank() == 1 ? 0 : 4);  // who has no samples takes part
    }
    out[r] = m.w;
    if (evaluated != nullptr) opt.evaluate([&] { (*evaluated)[r] = m.w; });
    LIMBER_CHECK(m.w == out[r]);
  });
  return out;
}

struct ratios {
  double contraction = 0, drift = 0;
};

// Mean over rounds of what one round does to the variance of p models, and to their mean.
ratios ratios_of(gossip_how how, int p, i64 rounds) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  std::vector<double> x(static_cast<std::size_t>(p));
  ratios sum;
  for (i64 round = 0; round < rounds; ++round) {
    for (double& v : x) v = normal(random);
    auto const before = consensus_of(x);
    auto const after = consensus_of(mixed(x, sync::crossings_of(how, p, 42, round)));
    double const moved = after.mean - before.mean;
    sum.contraction += after.variance / before.variance / static_cast<double>(rounds);
    sum.drift += p * moved * moved / before.variance / static_cast<double>(rounds);
  }
  return sum;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_round_contracts_the_variance_and_moves_the_mean_as_the_theory_says) {
  struct row {
    gossip_how how;
    std::array<double, 3> contraction;
    double drift;
  };
  std::array<int, 3> const workers{8, 32, 128};
  std::array<i64, 3> const rounds{30'000, 15'000, 8'000};
  for (row const& r :
       {row{gossip_how::pull, {.401, .475, .495}, .25}, row{gossip_how::push, {.558, .615, .627}, .10},
        row{gossip_how::matching, {.435, .483, .495}, 0}})
    for (std::size_t k = 0; k < workers.size(); ++k) {
      ratios const got = ratios_of(r.how, workers[k], rounds[k]);
      BOOST_TEST(got.contraction == r.contraction[k], boost::test_tools::tolerance(0.05));
      // The drifts are those of many workers: of eight, which exclude themselves, they are 1.4 % and 5 %
      // less.
      if (r.drift > 0)
        BOOST_TEST(got.drift == r.drift, boost::test_tools::tolerance(workers[k] == 8 ? 0.08 : 0.05));
      else
        BOOST_TEST(got.drift < 1e-28);
    }
}

BOOST_AUTO_TEST_CASE(every_other_rank_is_drawn_equally_often_and_never_oneself) {
  for (int const size : {2, 3, 9}) {
    for (int rank = 0; rank < size; ++rank) {
      std::map<int, int> drawn;
      constexpr int times = 20'000;
      for (i64 k = 0; k < times; ++k) ++drawn[sync::random_other(rank, size, 11, k)];
      BOOST_TEST(drawn.count(rank) == 0u);
      BOOST_TEST(drawn.size() == static_cast<std::size_t>(size - 1));
      double const expected = times / static_cast<double>(size - 1);
      for (auto const& [other, n] : drawn) BOOST_TEST(std::abs(n - expected) < 5 * std::sqrt(expected) + 1);
    }
  }
  BOOST_TEST(
      (sync::crossings_of(gossip_how::push, 9, 1, 0) != sync::crossings_of(gossip_how::push, 9, 1, 1)));
  BOOST_TEST(
      (sync::crossings_of(gossip_how::push, 9, 1, 0) != sync::crossings_of(gossip_how::push, 9, 2, 0)));
  BOOST_TEST(has(message_of([] { (void)sync::random_other(0, 1, 0, 0); }), "random_other", "0 of 1"));
}

// Blocking sends that wait for their receiver, played through: every message needs both ends at it.
BOOST_AUTO_TEST_CASE(no_round_can_wait_in_a_circle) {
  for (gossip_how const how : ways)
    for (int const size : {2, 3, 7, 32})
      for (i64 round = 0; round < 25; ++round) {
        auto const all = sync::crossings_of(how, size, 3, round);
        std::vector<std::vector<sync::crossing>> todo;
        for (int r = 0; r < size; ++r) {
          todo.push_back(sync::itinerary(r, size, all));
          std::ranges::reverse(todo.back());
        }
        std::size_t made = 0, rounds = 0;
        for (bool moved = true; moved; ++rounds) {
          moved = false;
          for (auto const& m : all) {
            auto &from = todo[static_cast<std::size_t>(m.from)], &to = todo[static_cast<std::size_t>(m.to)];
            if (from.empty() || to.empty() || !(from.back() == m) || !(to.back() == m)) continue;
            from.pop_back();
            to.pop_back();
            ++made;
            moved = true;
          }
        }
        BOOST_TEST_REQUIRE(made == all.size());
        for (auto const& rest : todo) BOOST_TEST_REQUIRE(rest.empty());
      }
}

BOOST_AUTO_TEST_CASE(a_ring_takes_three_turns_however_long_it_is) {
  std::vector<sync::crossing> ring;
  for (int r = 0; r < 101; ++r) ring.push_back({r, (r + 1) % 101});
  // Rank 50 sends and gets at its first two turns; were the ring gone through in order, it would be the 50th.
  auto const own = sync::itinerary(50, 101, ring);
  BOOST_TEST((own[0] == sync::crossing{50, 51}));
  BOOST_TEST((own[1] == sync::crossing{49, 50}));
}

BOOST_AUTO_TEST_CASE(models_of_a_round_are_those_from_before_it_whoever_they_go_to) {
  for (gossip_how const how : ways)
    for (int const workers : {2, 5, 8}) {
      constexpr int calls = 9;
      std::vector<std::vector<double>> evaluated;
      auto const got = at_rest(workers, sync::gossip{.period = 2, .how = how, .seed = 6}, calls, &evaluated);
      for (std::size_t k = 0; k < got[0].size(); ++k) {
        std::vector<double> x;
        for (std::size_t r = 0; r < got.size(); ++r) x.push_back(start_of(r, k));
        for (i64 round = 0; round < calls / 2; ++round)
          x = mixed(x, sync::crossings_of(how, workers, 6, round));
        for (std::size_t r = 0; r < got.size(); ++r) {
          BOOST_TEST(std::abs(got[r][k] - x[r]) < 1e-13);
          BOOST_TEST(std::abs(evaluated[r][k] - consensus_of(x).mean) < 1e-13);
        }
      }
    }
}

BOOST_AUTO_TEST_CASE(gossip_without_gradients_agrees) {
  for (gossip_how const how : ways) {
    auto const got = at_rest(6, sync::gossip{.how = how, .seed = 1}, 60);
    for (std::size_t r = 1; r < got.size(); ++r) BOOST_TEST(distance(got[r], got[0]) < 1e-4);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_worker_is_the_plain_rule, T, scalars) {
  dealing const one{{8}};
  auto const plain = train<T>(1, sync::allreduce{}, nesterov, one);
  for (gossip_how const how : ways)
    BOOST_TEST((train<T>(1, sync::gossip{.period = 2, .how = how}, nesterov, one) == plain));
}

// The paper, typed out: every node steps on its own gradient, then takes the mean with those that reach it.
BOOST_AUTO_TEST_CASE(gossip_follows_the_paper) {
  for (gossip_how const how : {gossip_how::pull, gossip_how::push}) {
    constexpr std::size_t workers = 3;
    constexpr int calls = 20;
    std::array<toy_model<double>, workers> m;
    std::array<std::vector<double>, workers> v;
    for (auto& x : v) x.assign(21, 0);
    i64 first = 0, round = 0;
    for (int call = 0; call < calls; ++call) {
      double const rate = 0.02 * std::min(1.0, call / 4.0);
      auto const& now = changing[static_cast<std::size_t>(call) % changing.size()];
      for (std::size_t r = 0; r < workers; first += now[r++]) {
        if (now[r] == 0) continue;
        m[r].backward(run_of(first, now[r]));
        for (std::size_t k = 0; k < 21; ++k) {
          double& g = k < 20 ? m[r].gw[k] : m[r].gb[0];
          v[r][k] = 0.9 * v[r][k] + g;
          (k < 20 ? m[r].w[k] : m[r].b[0]) -= rate * v[r][k];
          g = 0;
        }
      }
      if (call % 2 != 1) continue;
      auto const who = sync::crossings_of(how, workers, 8, round++);
      for (std::size_t k = 0; k < 21; ++k) {
        std::vector<double> x;
        for (auto const& one : m) x.push_back(one.all()[k]);
        x = mixed(x, who);
        for (std::size_t r = 0; r < workers; ++r) (k < 20 ? m[r].w[k] : m[r].b[0]) = x[r];
      }
    }
    auto const got = train<double>(workers, sync::gossip{.period = 2, .how = how, .seed = 8},
                                   sgd{.momentum = 0.9}, changing, calls, false);
    for (std::size_t r = 0; r < workers; ++r) BOOST_TEST(distance(got[r], m[r].all()) < 1e-12);
  }
}

BOOST_AUTO_TEST_CASE(a_model_that_is_not_finite_weighs_nothing_and_is_replaced) {
  for (gossip_how const how : ways)
    for (double const bad :
         {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
      threads::run(4, [&](threads::communicator& comm) {
        toy_model<double> m;
        auto const start = m.all();
        optimizer opt{m.parameters(),          descent{}, 0.0, sync::gossip{.how = how, .seed = 2}, comm,
                      {.batch = per_worker{4}}};
        opt.handshake();
        if (comm.rank() == 0) m.w[3] = bad;
        for (int call = 0; call < 12; ++call) {
          opt.step(4);
          if (comm.rank() != 0) LIMBER_CHECK(m.all() == start);
        }
        LIMBER_CHECK(m.all() == start);
      });
}

BOOST_AUTO_TEST_CASE(equal_models_stay_what_they_are_bit_for_bit) {
  for (gossip_how const how : ways) {
    threads::run(5, [&](threads::communicator& comm) {
      std::vector<float> w, g(1000);
      std::mt19937 random(1);
      for (int k = 0; k < 1000; ++k) w.push_back(std::normal_distribution<float>()(random));
      auto const start = w;
      optimizer opt{std::vector<tensor>{{"w", w, g}}, descent{}, 0.0, sync::gossip{.how = how}, comm};
      for (int call = 0; call < 10; ++call) opt.step(1);
      LIMBER_CHECK(w == start);
    });
  }
}

BOOST_AUTO_TEST_CASE(history_is_kept_averaged_or_reset) {
  auto with = [](sync::moments m) {
    return train<double>(2, sync::gossip{.period = 3, .at_merge = m}, sgd{.momentum = 0.9}, {{8, 8}});
  };
  // Two workers with averaged histories are local SGD with averaged histories.
  for (auto const m : {sync::moments::keep, sync::moments::average, sync::moments::reset}) {
    auto const local = train<double>(2, sync::local{3, m}, sgd{.momentum = 0.9}, {{8, 8}});
    BOOST_TEST(distance(with(m)[0], local[0]) < 1e-12);
  }
  BOOST_TEST(distance(with(sync::moments::keep)[0], with(sync::moments::reset)[0]) > 1e-6);
}

BOOST_AUTO_TEST_CASE(moving_averages_go_with_the_model) {
  threads::run(2, [](threads::communicator& comm) {
    toy_model<double> m;
    optimizer opt{m.parameters(), ema{sgd{}, 0.5}, 0.01, sync::gossip{.period = 2}, comm};
    for (int t = 0; t < 4; ++t) {
      m.backward(run_of(t * 30 + comm.rank() * 10, 4));
      opt.step(4);
    }
    std::vector<double> own;
    opt.visit([&](state_piece const& p) {
      if (p.name.find("slot0") != std::string::npos)
        for (double x : p.data.as<double>()) own.push_back(x);
    });
    std::vector<double> all(2 * own.size());
    comm.all_gather(const_view(own), view(all)).wait();
    for (std::size_t k = 0; k < all.size(); ++k) LIMBER_CHECK(all[k] == own[k % own.size()]);
  });
}

// Far below a step of bf16: only if masters cross does the mean move.
BOOST_AUTO_TEST_CASE(masters_are_what_crosses) {
  threads::run(2, [](threads::communicator& comm) {
    std::vector<bf16> w(100, bf16(1.f));
    std::vector<float> g(100);
    optimizer opt{std::vector<tensor>{{"w", w, g}}, master{descent{}}, 1.0,
                  sync::gossip{.how = gossip_how::pull}, comm};
    for (int t = 0; t < 10; ++t) {
      std::ranges::fill(g, comm.rank() == 0 ? 1e-3f : 3e-3f);
      opt.step(1);
    }
    LIMBER_CHECK(static_cast<float>(w[0]) == static_cast<float>(bf16(1 - 2e-2f)));
  });
}

BOOST_AUTO_TEST_CASE(workers_come_and_go) {
  for (gossip_how const how : ways)
    threads::run(4, [&](threads::communicator& comm) {
      toy_model<double> m;
      auto few = comm.split(comm.rank() < 3 ? 0 : 1);
      optimizer opt{m.parameters(), descent{}, 0.0, sync::gossip{.how = how}, few, {.batch = per_worker{4}}};
      opt.handshake();
      if (comm.rank() < 3) {
        std::ranges::fill(m.w, 1.0 + comm.rank());
        for (int call = 0; call < 7; ++call) opt.step(4);
      }
      opt.resize(comm);
      for (int call = 0; call < 40; ++call) opt.step(4);
      LIMBER_CHECK(opt.now().calls == 47);
      LIMBER_CHECK(m.w[0] > 1 && m.w[0] < 3);
      std::array<double, 1> const own{m.w[0]};
      std::array<double, 4> all{};
      comm.all_gather(const_view(own), view(all)).wait();
      LIMBER_CHECK(std::abs(all[0] - all[3]) < 1e-4);
    });
}

BOOST_AUTO_TEST_CASE(the_gpu_executor_has_the_bits_of_the_host) {
  auto const trained = []<class E>(gossip_how how, E*) {
    std::vector<std::vector<float>> out(5);
    threads::run(5, [&](threads::communicator& comm) {
      toy_model<float> m;
      options o;
      o.batch = per_worker{6};
      optimizer opt{
          m.parameters(), ema{sgd{.momentum = 0.9}, 0.9}, 0.02, sync::gossip{.how = how}, comm, o, E{}};
      for (int t = 0; t < 7; ++t) {
        m.backward(run_of(t * 50 + comm.rank() * 10, 6));
        opt.step(6);
      }
      opt.evaluate([] {});
      out[static_cast<std::size_t>(comm.rank())] = m.all();
    });
    return out;
  };
  for (gossip_how const how : {gossip_how::pull, gossip_how::push}) {
    auto const expected = trained(how, static_cast<host*>(nullptr)),
               got = trained(how, static_cast<emulated*>(nullptr));
    for (std::size_t r = 0; r < got.size(); ++r) BOOST_TEST(same_bits(got[r], expected[r]));
    BOOST_TEST(!same_bits(got[0], got[1]));
  }
}

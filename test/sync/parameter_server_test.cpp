// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize memory
#define BOOST_TEST_MODULE limber.sync.parameter_server
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/baton.hpp>
#include <support/checks.hpp>
#include <support/dealing.hpp>
#include <support/toy_model.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace limber;
using namespace limber::testing;

namespace {

// A rate that follows the samples that the server has applied.
double rate_of(progress const& now) { return 0.02 / (1 + static_cast<double>(now.samples) / 200); }

// The server by hand: momentum 0.9, in double, as the papers print it.
struct by_hand {
  sync::parameter_server how;
  std::vector<double> w = toy_model<double>{}.all(), v = std::vector<double>(w.size()), square = v, sum = v;
  std::array<std::vector<double>, 4> given{w, w, w, w};  // what each worker computes at
  std::array<i64, 4> known{};
  std::vector<i64> staleness{};
  progress now{};
  i64 version = 0, folded = 0, count = 0;

  void take(int worker, std::vector<i64> const& samples) {
    auto const r = static_cast<std::size_t>(worker);
    if (!samples.empty()) {
      toy_model<double> m;
      std::copy_n(given[r].begin(), m.w.size(), m.w.begin());
      m.b[0] = given[r].back();
      m.backward(samples);
      auto g = m.gw;
      g.push_back(m.gb[0]);
      i64 const late = version - known[r];
      staleness.push_back(late);
      double const f = how.staleness == sync::staleness_rule::inverse
                           ? 1.0 / static_cast<double>(std::max<i64>(1, late))
                           : 1;
      auto const b = static_cast<double>(samples.size());
      for (std::size_t i = 0; i < g.size(); ++i) {
        double const g2 = g[i] * g[i];
        double lambda = how.compensation;
        if (how.adaptive_compensation) {
          square[i] = 0.95 * square[i] + 0.05 * g2;
          lambda /= std::sqrt(square[i] + 1e-7);
        }
        sum[i] += f * b * (g[i] + lambda * g2 * (w[i] - given[r][i]));
      }
      count += static_cast<i64>(samples.size());
      if (++folded == how.softsync) update();
    }
    given[r] = w;
    known[r] = version;
  }

  void update() {
    if (folded == 0) return;
    double const eta = rate_of(now);
    for (std::size_t i = 0; i < w.size(); ++i) {
      v[i] = 0.9 * v[i] + sum[i] / static_cast<double>(count);
      w[i] -= eta * v[i];
      sum[i] = 0;
    }
    now.samples += count;
    ++version;
    folded = count = 0;
  }
};

// Three workers under a script against the server by hand, call by call.
void follows(sync::parameter_server how) {
  auto const events = uneven_script();
  by_hand hand{how};
  std::vector<std::vector<double>> models;
  std::vector<progress> progresses;
  i64 first = 0;
  for (auto const& e : events) {
    hand.take(e.worker, run_of(first, e.samples));
    first += e.samples;
    models.push_back(hand.w);
    progresses.push_back(hand.now);
    progresses.back().steps = hand.version;
  }
  hand.update();

  baton turn(events);
  sync::server_log log;
  how.log = &log;
  threads::run(4, [&](threads::communicator& comm) {
    toy_model<double> m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9}, rate_of, how, comm, {.batch = per_worker{8}}};
    opt.handshake();
    i64 updates = 0;
    if (comm.rank() == 0) {
      opt.serve([&](step_report const& r) { updates += r.applied; });
      LIMBER_CHECK(updates == hand.version);
    } else {
      turn.follow(comm.rank(), [&](event const& e, std::size_t k) {
        i64 at = 0;
        for (std::size_t before = 0; before < k; ++before) at += events[before].samples;
        m.backward(run_of(at, e.samples));
        opt.step(e.samples);
        LIMBER_CHECK(distance(m.all(), models[k]) < 1e-12);
        LIMBER_CHECK(opt.now().samples == progresses[k].samples);
        LIMBER_CHECK(opt.now().steps == progresses[k].steps);
      });
      opt.finish();
    }
    LIMBER_CHECK(distance(m.all(), hand.w) < 1e-12);
    LIMBER_CHECK(opt.now().samples == hand.now.samples && opt.now().steps == hand.version);
  });
  std::vector<i64> staleness;
  for (auto const& e : log.entries) staleness.push_back(e.staleness);
  BOOST_TEST((staleness == hand.staleness));
  auto const histogram = log.histogram();
  for (std::size_t k = 0; k < histogram.size(); ++k)
    BOOST_TEST(histogram[k] == std::ranges::count(staleness, static_cast<i64>(k)));
  BOOST_TEST(histogram.size() > 1U);
}

// The toy model with weights in bf16 and gradients in float.
struct narrow_model {
  toy_model<float> exact;
  std::vector<bf16> w = std::vector<bf16>(exact.w.size(), bf16(0.5f)), b = {bf16(0.0f)};

  [[nodiscard]] std::vector<tensor> parameters() { return {{"w", w, exact.gw}, {"b", b, exact.gb}}; }
  [[nodiscard]] std::vector<float> all() {
    for (std::size_t i = 0; i < w.size(); ++i) exact.w[i] = static_cast<float>(w[i]);
    exact.b[0] = static_cast<float>(b[0]);
    return exact.all();
  }
  void backward(std::vector<i64> const& samples) {
    (void)all();
    exact.backward(samples);
  }
};

// What `calls` calls of one worker come to, with a server or by all-reduce alone.
template <class Model, class R, class S>
auto of_one(R const& rule, S const& strategy, options o = {}, int calls = 24) {
  constexpr bool served = requires { strategy.softsync; };
  decltype(Model{}.all()) out, of_server;
  o.batch = per_worker{8};
  threads::run(served ? 2 : 1, [&](threads::communicator& comm) {
    Model m;
    auto const rate = [](progress const& now) {
      return rate_of(now) * std::min(1.0, now.in(unit::steps) / 4);
    };
    optimizer opt{m.parameters(), rule, rate, strategy, comm, o};
    bool const serves = served && comm.rank() == 0;
    if constexpr (served)
      if (serves) opt.serve();
    for (int t = 0; !serves && t < calls; ++t) {
      // Of a planned batch of 8: a server weighs by n / 8, which rounds nothing here; one worker does not
      // weigh.
      i64 const n = t % 4 == 2 ? 4 : t % 7 == 6 ? 0 : 8;
      m.backward(run_of(8 * t, n));
      opt.step(n);
    }
    if (!serves) opt.finish();
    (serves ? of_server : out) = m.all();
  });
  if (served) BOOST_TEST(same_bits(out, of_server));
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(gradients_are_applied_in_order_of_arrival) { follows({}); }

BOOST_AUTO_TEST_CASE(staleness_divides_what_is_late) {
  follows({.staleness = sync::staleness_rule::inverse});
}

BOOST_AUTO_TEST_CASE(a_late_gradient_is_compensated) {
  follows({.compensation = 0.04});
  follows({.staleness = sync::staleness_rule::inverse, .compensation = 0.5});
  follows({.compensation = 2, .adaptive_compensation = true});
}

BOOST_AUTO_TEST_CASE(some_gradients_make_one_update) {
  follows({.softsync = 3});
  follows({.staleness = sync::staleness_rule::inverse, .softsync = 2});
  follows({.compensation = 2, .adaptive_compensation = true, .softsync = 4});
}

BOOST_AUTO_TEST_CASE(one_worker_is_the_plain_rule_bit_for_bit) {
  auto const same = []<class Model>(Model m, auto const& rule, options const& o = {}) {
    auto const plain = of_one<Model>(rule, sync::allreduce{}, o);
    auto const served = of_one<Model>(rule, sync::parameter_server{}, o);
    BOOST_TEST(same_bits(plain, served));
    BOOST_TEST(!same_bits(plain, m.all()));
  };
  same(toy_model<float>{}, nesterov);
  same(toy_model<float>{}, adam{});
  same(toy_model<double>{}, clipped{adamw{}, 0.5});
  same(narrow_model{}, master{sgd{.momentum = 0.9}});
  options wired;
  wired.buckets.wire = dtype::bf16;
  same(toy_model<float>{}, adam{}, wired);
  options summed;
  summed.gradient = gradient_is::sum;
  same(toy_model<float>{}, nesterov, summed);
}

BOOST_AUTO_TEST_CASE(one_worker_is_never_late) {
  auto const plain = of_one<toy_model<float>>(nesterov, sync::allreduce{});
  for (sync::parameter_server const& how :
       {sync::parameter_server{.staleness = sync::staleness_rule::inverse},
        sync::parameter_server{.bound = 0}})
    BOOST_TEST(same_bits(of_one<toy_model<float>>(nesterov, how), plain));
  // w − w_bak is 0: compensation changes nothing but where weights are rounded.
  for (bool const adaptive : {false, true})
    BOOST_TEST(
        distance(of_one<toy_model<double>>(
                     nesterov, sync::parameter_server{.compensation = 2, .adaptive_compensation = adaptive}),
                 of_one<toy_model<double>>(nesterov, sync::allreduce{})) < 1e-12);
}

BOOST_AUTO_TEST_CASE(no_bound_and_all_in_one_update_is_synchronous) {
  constexpr int workers = 3, calls = 15;
  auto const expected = train<double>(workers, sync::allreduce{}, nesterov, changing, calls);
  // A call without samples is in no update; here all have some.
  dealing const deal{{2, 6, 16}, {10, 2, 3}, {1, 20, 5}};
  auto const synchronous = train<double>(workers, sync::allreduce{}, nesterov, deal, calls);
  BOOST_TEST(distance(expected[0], synchronous[0]) > 1e-6);
  threads::run(workers + 1, [&](threads::communicator& comm) {
    toy_model<double> m;
    optimizer opt{m.parameters(),
                  nesterov,
                  linear_scaling{.base_lr = 0.02, .base_batch = 24} * warmup(steps(4)),
                  sync::parameter_server{.server = workers, .bound = 0, .softsync = workers},
                  comm,
                  {.batch = per_worker{8}, .epoch_size = 1000}};
    if (comm.rank() == workers) {
      opt.serve();
    } else {
      i64 first = 0;
      for (int t = 0; t < calls; ++t) {
        auto const& now = deal[static_cast<std::size_t>(t) % deal.size()];
        for (int r = 0; r < workers; first += now[static_cast<std::size_t>(r++)])
          if (r == comm.rank()) m.backward(run_of(first, now[static_cast<std::size_t>(r)]));
        opt.step(now[static_cast<std::size_t>(comm.rank())]);
      }
      opt.finish();
    }
    LIMBER_CHECK(distance(m.all(), synchronous[0]) < 1e-12);
    LIMBER_CHECK(opt.now().steps == calls);
  });
}

BOOST_AUTO_TEST_CASE(the_fastest_is_ahead_of_the_slowest_by_the_bound_and_no_more) {
  for (i64 const bound : {0, 1, 4}) {
    constexpr i64 calls = 24;
    std::atomic<i64> slow_began = 0, fast_done = 0, most = 0;
    threads::run(3, [&](threads::communicator& comm) {
      toy_model<float> m;
      optimizer opt{m.parameters(),          descent{}, 0.001, sync::parameter_server{.bound = bound}, comm,
                    {.batch = per_worker{4}}};
      opt.handshake();
      if (comm.rank() == 0) return opt.serve();
      for (i64 k = 1; k <= calls; ++k) {
        if (comm.rank() == 2) {
          // Only when the other has done all it may.
          for (int patience = 0; fast_done < std::min(calls, k - 1 + bound); ++patience) {
            if (patience > 100'000)
              throw std::runtime_error("the fast worker does not come as far as it may");
            std::this_thread::sleep_for(std::chrono::microseconds(100));
          }
          slow_began = k;
        }
        m.backward(run_of(k, 4));
        opt.step(4);
        if (comm.rank() == 1) {
          most = std::max<i64>(most, k - slow_began);
          LIMBER_CHECK(k - slow_began <= bound);
          fast_done = k;
        }
      }
      opt.finish();
    });
    BOOST_TEST(most == bound);
  }
}

BOOST_AUTO_TEST_CASE(workers_say_goodbye_when_they_like) {
  std::vector<sync::parameter_server> const all{{},
                                                {.bound = 0},
                                                {.bound = 1, .softsync = 3},
                                                {.staleness = sync::staleness_rule::inverse, .softsync = 5}};
  for (auto const& how : all) {
    std::vector<std::vector<float>> models(4);
    threads::run(4, [&](threads::communicator& comm) {
      auto const r = static_cast<std::size_t>(comm.rank());
      toy_model<float> m;
      optimizer opt{m.parameters(), nesterov, 0.001, how, comm, {.batch = per_worker{4}}};
      for (int round = 0; round < 2; ++round) {
        if (comm.rank() == how.server) {
          opt.serve();
        } else {
          for (int k = 0; k < 7 * comm.rank() - 7; ++k) {
            m.backward(run_of(k, 4));
            opt.step(4);
          }
          opt.finish();
        }
        // Seven calls of rank 2, fourteen of rank 3: nothing is lost, and all know it.
        LIMBER_CHECK(opt.now().samples == 4 * 21 * (round + 1));
        LIMBER_CHECK(opt.now().steps == (round + 1) * ((21 + how.softsync - 1) / how.softsync));
        opt.finish();  // once more closes nothing
      }
      models[r] = m.all();
    });
    for (auto const& m : models) BOOST_TEST(same_bits(m, models[0]));
  }
}

BOOST_AUTO_TEST_CASE(a_gradient_that_is_not_finite_is_not_applied_and_its_worker_is_told) {
  for (i64 const softsync : {1, 2}) {
    for (bool const adaptive : {false, true}) {
      std::array<std::vector<double>, 2> ends;
      for (bool const bad : {false, true}) {
        baton turn({{1}, {2}, {1}, {2}, {1}, {2}});
        threads::run(3, [&](threads::communicator& comm) {
          toy_model<double> m;
          i64 refused = 0;
          optimizer opt{m.parameters(),
                        nesterov,
                        0.01,
                        sync::parameter_server{.compensation = adaptive ? 2.0 : 0.0,
                                               .adaptive_compensation = adaptive,
                                               .softsync = softsync},
                        comm,
                        {.batch = per_worker{8}}};
          opt.handshake();
          if (comm.rank() == 0) {
            opt.serve([&](step_report const& r) {
              if (!r.skipped) return;
              ++refused;
              LIMBER_CHECK(r.culprit == "b" && r.culprit_rank == 2);
            });
            LIMBER_CHECK(refused == (bad ? 1 : 0));
          } else {
            turn.follow(comm.rank(), [&](event const&, std::size_t k) {
              m.backward(run_of(static_cast<i64>(8 * k), 8));
              // With compensation it is the square that is too large, which the server sees.
              if (k == 3 && bad) m.gb[0] = adaptive ? 1e200 : std::numeric_limits<double>::infinity();
              // Without samples, or with a gradient that cannot be used: the same to all others.
              auto const& report = opt.step(k == 3 && !bad ? 0 : 8);
              LIMBER_CHECK(report.skipped == (k == 3 && bad));
              LIMBER_CHECK(k != 3 || !bad || (report.culprit == "b" && report.culprit_rank == 2));
            });
            opt.finish();
          }
          LIMBER_CHECK(opt.now().samples == 8 * 5);
          if (comm.rank() == 2) ends[bad] = m.all();
        });
      }
      BOOST_TEST(same_bits(ends[0], ends[1]));
    }
  }
}

BOOST_AUTO_TEST_CASE(what_overflows_on_the_wire_is_refused_by_the_server) {
  for (i64 const softsync : {1, 2}) {
    threads::run(2, [&](threads::communicator& comm) {
      toy_model<float> m;
      auto const start = m.all();
      options o;
      o.batch = per_worker{8};
      o.buckets.wire = dtype::f16;
      sync::server_log log;
      optimizer opt{m.parameters(), nesterov, 0.01, sync::parameter_server{.softsync = softsync, .log = &log},
                    comm,           o};
      if (comm.rank() == 0) {
        opt.serve();
        LIMBER_CHECK(log.entries.empty());
      } else {
        m.gw[7] = 1e6f;
        auto const& report = opt.step(8);
        LIMBER_CHECK(report.skipped && !report.applied && report.culprit == "w" && report.culprit_rank == 1);
        opt.finish();
      }
      LIMBER_CHECK(m.all() == start && opt.now().steps == 0);
    });
  }
}

BOOST_AUTO_TEST_CASE(a_worker_gives_up_after_too_many_bad_gradients_in_a_row) {
  auto const message = message_of([] {
    threads::run(3, [](threads::communicator& comm) {
      toy_model<float> m;
      options o;
      o.batch = per_worker{8};
      o.max_skipped = 3;
      optimizer opt{m.parameters(), nesterov, 0.01, sync::parameter_server{}, comm, o};
      if (comm.rank() == 0) return opt.serve();
      for (;;) {
        m.backward(run_of(0, 8));
        if (comm.rank() == 2) m.gw[0] = std::numeric_limits<float>::quiet_NaN();
        opt.step(8);
      }
    });
  });
  BOOST_TEST(has(message, "not finite in 4 updates in a row", "rank 2"), message);
}

BOOST_AUTO_TEST_CASE(nobody_hangs_when_somebody_throws) {
  for (int const who : {0, 1}) {
    for (i64 const bound : {-1, 0}) {
      auto const message = message_of([&] {
        threads::run(3, [&](threads::communicator& comm) {
          toy_model<float> m;
          optimizer opt{m.parameters(), nesterov,
                        0.001,          sync::parameter_server{.bound = bound},
                        comm,           {.batch = per_worker{4}}};
          if (comm.rank() == 0)
            return opt.serve([&](step_report const&) {
              if (who == 0 && opt.now().steps == 5) throw std::runtime_error("out of luck");
            });
          for (int k = 0; k < 1'000'000; ++k) {
            if (who == comm.rank() && k == 5) throw std::runtime_error("out of luck");
            m.backward(run_of(k, 1));
            opt.step(4);
          }
        });
      });
      BOOST_TEST(has(message, "out of luck"), message);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_server_that_does_not_serve_is_an_error) {
  auto const message = message_of([] {
    threads::run(2, [](threads::communicator& comm) {
      toy_model<float> m;
      optimizer opt{m.parameters(),           nesterov, 0.001,
                    sync::parameter_server{}, comm,     {.batch = per_worker{4}}};
      if (comm.rank() == 0) return opt.finish();
      opt.step(0);
    });
  });
  BOOST_TEST(has(message, "call serve()", "rank 1"), message);
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), nesterov, 0.001, sync::parameter_server{}, comm, {.batch = per_worker{4}}};
    auto const wrong = message_of([&] {
      if (comm.rank() == 0)
        opt.step(4);
      else
        opt.serve();
    });
    LIMBER_CHECK(has(wrong, "server"));
  });
}

// Rank 0 serves, leaves, and rank 1 goes on in its place, with its momentum and its mean square.
BOOST_AUTO_TEST_CASE(another_rank_can_serve_after_finish) {
  sync::parameter_server const how{.compensation = 2, .adaptive_compensation = true};
  std::array<std::vector<double>, 2> ends;
  for (bool const changes : {false, true}) {
    script half;
    for (int k = 0; k < 5; ++k) half.insert(half.end(), {{2}, {3}});
    baton first(half), second(half);
    threads::run(4, [&](threads::communicator& comm) {
      auto rest = comm.split(comm.rank() == 0 ? 0 : 1);
      toy_model<double> m;
      optimizer opt{m.parameters(), nesterov, rate_of, how, comm, {.batch = per_worker{8}}};
      auto const work = [&](baton& turn, i64 from) {
        opt.handshake();
        turn.follow(comm.rank(), [&](event const&, std::size_t k) {
          m.backward(run_of(from + 8 * static_cast<i64>(k), 8));
          opt.step(8);
        });
        opt.finish();
      };
      if (comm.rank() == 0) {
        opt.serve();
        if (!changes) opt.serve();
        if (changes) opt.finish();  // for the resize of the others
        return;
      }
      work(first, 0);
      if (changes) opt.resize(rest);
      if (changes && comm.rank() == 1)
        opt.serve();
      else
        work(second, 100);
      LIMBER_CHECK(opt.now().steps == 20);
      if (comm.rank() == 2) ends[changes] = m.all();
    });
  }
  BOOST_TEST(same_bits(ends[0], ends[1]));
}

BOOST_AUTO_TEST_CASE(buffers_are_averaged_by_samples_at_the_end) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<float> m;
    std::vector<float> statistics{static_cast<float>(comm.rank())};
    optimizer opt{groups(parameter_group{m.parameters(), nesterov}, buffers{{{"statistics", statistics}}}),
                  0.001,
                  sync::parameter_server{},
                  comm,
                  {.batch = per_worker{4}}};
    opt.handshake();
    statistics[0] = static_cast<float>(10 * comm.rank());
    if (comm.rank() == 0) {
      opt.serve();
    } else {
      m.backward(run_of(0, 4));
      opt.step(comm.rank() == 1 ? 2 : 6);
      opt.finish();
    }
    LIMBER_CHECK(statistics[0] == (2 * 10 + 6 * 20) / 8.0f);
  });
}

BOOST_AUTO_TEST_CASE(bad_choices_are_refused_by_name) {
  using server = sync::parameter_server;
  BOOST_TEST(has(message_of([] { (void)server{.server = -1}.parts(); }), "server", "-1"));
  BOOST_TEST(has(message_of([] { (void)server{.compensation = -2}.parts(); }), "compensation", "-2"));
  BOOST_TEST(has(message_of([] { (void)server{.adaptive_compensation = true}.parts(); }), "adaptive"));
  BOOST_TEST(has(message_of([] { (void)server{.bound = -2}.parts(); }), "bound", "-2"));
  BOOST_TEST(has(message_of([] { (void)server{.softsync = 0}.parts(); }), "softsync", "0"));
  auto const feedback = message_of([] {
    threads::run(2, [](threads::communicator& comm) {
      toy_model<float> m;
      options o;
      o.buckets.wire = dtype::bf16;
      o.buckets.error_feedback = true;
      optimizer opt{m.parameters(), nesterov, 0.001, server{}, comm, o};
    });
  });
  BOOST_TEST(has(feedback, "parameter_server", "error_feedback"), feedback);
  auto const alone = message_of([] {
    toy_model<float> m;
    self comm;
    optimizer opt{m.parameters(), nesterov, 0.001, server{}, comm, {.batch = per_worker{4}}};
  });
  BOOST_TEST(has(alone, "worker"), alone);
}

// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize
// sanitizers: address
#define BOOST_TEST_MODULE limber.sync.asynchronous_elastic
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
#include <limits>
#include <stdexcept>
#include <vector>

using namespace limber;
using namespace limber::testing;

namespace {

using elastic = sync::asynchronous_elastic_averaging;

void put(toy_model<double>& m, std::vector<double> const& x) {
  std::copy_n(x.begin(), m.w.size(), m.w.begin());
  m.b[0] = x.back();
}

// Three workers with momentum of their own and a centre, by hand.
struct by_hand {
  static constexpr double eta = 0.02, mu = 0.9, alpha = 0.9 / 3;
  static constexpr int period = 2;
  struct worker {
    toy_model<double> m;
    std::vector<double> v = std::vector<double>(21);
    int open = 0;
  };
  std::array<worker, 4> workers;
  std::vector<double> centre = toy_model<double>{}.all();

  void call(int who, std::vector<i64> const& samples) {
    auto& [m, v, open] = workers[static_cast<std::size_t>(who)];
    auto x = m.all();
    if (!samples.empty()) {
      m.gw.assign(m.gw.size(), 0);
      m.gb[0] = 0;
      m.backward(samples);
      for (std::size_t i = 0; i < x.size(); ++i) {
        double const g = i < m.gw.size() ? m.gw[i] : m.gb[0];
        v[i] = mu * v[i] + g;
        x[i] -= eta * (g + mu * v[i]);
      }
    }
    if (++open == period) {
      open = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        double const e = alpha * (x[i] - centre[i]);
        x[i] -= e;
        centre[i] += e;
      }
    }
    put(m, x);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(workers_meet_the_centre_when_they_come) {
  script events;
  for (int k = 0; k < 6; ++k)
    for (event const e : {event{1, 8}, event{2, 5}, event{1, 3}, event{3, 16}, event{1, k == 2 ? 0 : 8},
                          event{2, 9}, event{1, 2}, event{3, 1}})
      events.push_back(e);
  by_hand hand;
  std::vector<std::vector<double>> models, centres;
  i64 total = 0;
  for (auto const& e : events) {
    hand.call(e.worker, run_of(total, e.samples));
    total += e.samples;
    models.push_back(hand.workers[static_cast<std::size_t>(e.worker)].m.all());
    centres.push_back(hand.centre);
  }
  baton turn(events);
  threads::run(4, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    toy_model<double> m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9, .nesterov = true},
                  by_hand::eta,   elastic{.period = 2},
                  comm,           {.batch = per_worker{8}}};
    opt.handshake();
    auto const shows = [&](std::vector<double> const& centre) {
      auto const own = m.all();
      double off = 1;
      opt.evaluate([&] { off = distance(m.all(), centre); });
      return off < 1e-12 && m.all() == own;
    };
    if (r == 0) {
      i64 exchanges = 0;
      opt.serve([&](step_report const&) {
        ++exchanges;
        LIMBER_CHECK(shows(m.all()));
      });
      LIMBER_CHECK(exchanges == static_cast<i64>(events.size()) / 2);
      LIMBER_CHECK(distance(m.all(), hand.centre) < 1e-12);
    } else {
      LIMBER_CHECK(shows(m.all()));
      turn.follow(comm.rank(), [&](event const& e, std::size_t k) {
        i64 at = 0;
        for (std::size_t before = 0; before < k; ++before) at += events[before].samples;
        m.backward(run_of(at, e.samples));
        opt.step(e.samples);
        LIMBER_CHECK(distance(m.all(), models[k]) < 1e-12);
        LIMBER_CHECK(shows(centres[k]));
      });
      opt.finish();
      LIMBER_CHECK(distance(m.all(), hand.workers[r].m.all()) < 1e-12);
    }
    // All know the centre now, and stand at the same point.
    LIMBER_CHECK(shows(hand.centre));
    LIMBER_CHECK(opt.now().samples == total);
    LIMBER_CHECK(opt.now().steps == 24);  // calls of rank 1
  });
}

BOOST_AUTO_TEST_CASE(the_last_exchange_is_made_by_finish) {
  by_hand hand;
  auto& one = hand.workers[1];
  for (int k = 0; k < 3; ++k) hand.call(1, run_of(8 * k, 8));
  auto x = one.m.all();
  // Alone with the centre, α is the whole moving rate.
  threads::run(2, [&](threads::communicator& comm) {
    toy_model<double> m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9, .nesterov = true},
                  by_hand::eta,   elastic{.period = 2, .moving_rate = 0.3},
                  comm,           {.batch = per_worker{8}}};
    if (comm.rank() == 0) {
      opt.serve();
    } else {
      for (int k = 0; k < 3; ++k) {
        m.backward(run_of(8 * k, 8));
        opt.step(8);
      }
      LIMBER_CHECK(distance(m.all(), x) < 1e-12);
      opt.finish();
    }
    std::vector<double> end(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const e = 0.3 * (x[i] - hand.centre[i]);
      end[i] = comm.rank() == 0 ? hand.centre[i] + e : x[i] - e;
    }
    LIMBER_CHECK(distance(m.all(), end) < 1e-12);
    LIMBER_CHECK(opt.now().steps == 3 && opt.now().samples == 24);
  });
}

BOOST_AUTO_TEST_CASE(without_force_each_worker_is_the_plain_rule_and_the_centre_stays) {
  auto const work = [](auto& opt, auto& m, int who) {
    for (int k = 0; k < 10 + who; ++k) {
      m.backward(run_of(100 * who + 8 * k, 8));
      opt.step(8);
    }
    opt.finish();
  };
  threads::run(3, [&](threads::communicator& comm) {
    toy_model<float> m, plain;
    auto const start = m.all();
    optimizer opt{m.parameters(), nesterov,
                  0.01,           elastic{.period = 3, .moving_rate = 0, .server = 2},
                  comm,           {.batch = per_worker{8}}};
    if (comm.rank() == 2) {
      opt.serve();
      LIMBER_CHECK(m.all() == start);
      return;
    }
    work(opt, m, comm.rank());
    self nobody;
    optimizer own{plain.parameters(), nesterov, 0.01, sync::allreduce{}, nobody, {.batch = per_worker{8}}};
    work(own, plain, comm.rank());
    LIMBER_CHECK(same_bits(m.all(), plain.all()));
    LIMBER_CHECK(!same_bits(m.all(), start));
  });
}

BOOST_AUTO_TEST_CASE(exchanges_keep_the_sum_of_all_models_whatever_their_order) {
  constexpr int workers = 3;
  std::vector<std::vector<double>> before(workers + 1), after(workers + 1);
  threads::run(workers + 1, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    toy_model<double> m;
    optimizer opt{m.parameters(), descent{}, 0.0, elastic{.period = 1}, comm, {.batch = per_worker{4}}};
    opt.handshake();
    for (std::size_t i = 0; i < m.w.size(); ++i) m.w[i] = static_cast<double>((7 * r + 3 * i) % 11);
    before[r] = m.all();
    if (r == 0) {
      opt.serve();
    } else {
      for (int k = 0; k < 40 * comm.rank(); ++k) {
        m.backward(run_of(k, 4));
        opt.step(4);
      }
      opt.finish();
    }
    after[r] = m.all();
    LIMBER_CHECK(opt.now().samples == 4 * (40 + 80 + 120));
    LIMBER_CHECK(opt.now().steps == 120);
  });
  for (std::size_t i = 0; i < before[0].size(); ++i) {
    double kept = 0, was = 0;
    for (std::size_t r = 0; r <= workers; ++r) {
      was += before[r][i];
      kept += after[r][i];
    }
    BOOST_TEST(kept == was, boost::test_tools::tolerance(1e-12));
  }
}

// Wherever a worker stands, its clock of samples is that of all, as of its last exchange.
BOOST_AUTO_TEST_CASE(samples_are_those_of_all_workers) {
  script events;
  for (int k = 0; k < 4; ++k)
    for (int const who : {1, 1, 1, 2}) events.push_back({who, 8});
  baton turn(events);
  threads::run(3, [&](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), descent{}, 0.001, elastic{.period = 1}, comm, {.batch = per_worker{8}}};
    opt.handshake();
    if (comm.rank() == 0) return opt.serve();
    turn.follow(comm.rank(), [&](event const&, std::size_t k) {
      m.backward(run_of(0, 8));
      opt.step(8);
      LIMBER_CHECK(opt.now().samples == 8 * (static_cast<i64>(k) + 1));
    });
    opt.finish();
  });
}

BOOST_AUTO_TEST_CASE(history_is_kept_or_reset) {
  std::array<std::vector<double>, 2> ends;
  for (auto const at_merge : {sync::moments::keep, sync::moments::reset})
    threads::run(2, [&](threads::communicator& comm) {
      toy_model<double> m;
      optimizer opt{m.parameters(), nesterov,
                    0.01,           elastic{.period = 2, .moving_rate = 0, .at_merge = at_merge},
                    comm,           {.batch = per_worker{8}}};
      if (comm.rank() == 0) return opt.serve();
      for (int k = 0; k < 4; ++k) {
        m.backward(run_of(8 * k, 8));
        opt.step(8);
      }
      opt.finish();
      ends[at_merge == sync::moments::reset] = m.all();
    });
  // By hand: the second pair of calls starts without momentum.
  toy_model<double> m;
  self nobody;
  for (int pair = 0; pair < 2; ++pair) {
    optimizer opt{m.parameters(), nesterov, 0.01, sync::allreduce{}, nobody, {.batch = per_worker{8}}};
    for (int k = 2 * pair; k < 2 * pair + 2; ++k) {
      m.backward(run_of(8 * k, 8));
      opt.step(8);
    }
  }
  BOOST_TEST(same_bits(ends[1], m.all()));
  BOOST_TEST(distance(ends[0], m.all()) > 1e-6);
}

BOOST_AUTO_TEST_CASE(a_model_that_is_not_finite_pulls_nobody_and_restarts_from_the_centre) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<double> m;
    auto const start = m.all();
    optimizer opt{m.parameters(), descent{}, 0.0, elastic{.period = 1}, comm, {.batch = per_worker{4}}};
    opt.handshake();
    if (comm.rank() == 0) {
      opt.serve();
    } else {
      if (comm.rank() == 2) m.w[3] = std::numeric_limits<double>::infinity();
      opt.step(4);
      opt.finish();
    }
    LIMBER_CHECK(m.all() == start);
  });
}

BOOST_AUTO_TEST_CASE(masters_are_what_crosses) {
  threads::run(2, [](threads::communicator& comm) {
    std::vector<bf16> w(5, bf16(1.0f));
    std::vector<float> g(5);
    optimizer opt{std::vector<tensor>{{"w", w, g}},
                  master{descent{}},
                  1.0,
                  elastic{.period = 1, .moving_rate = 0.5},
                  comm,
                  {.batch = per_worker{1}}};
    if (comm.rank() == 0) {
      opt.serve();
    } else {
      // Steps of 2⁻¹⁰, which bf16 cannot hold next to 1.
      for (int k = 0; k < 64; ++k) {
        std::ranges::fill(g, -0x1p-10f);
        opt.step(1);
      }
      opt.finish();
    }
    // The worker walks 1/16 and the centre follows it.
    LIMBER_CHECK(static_cast<float>(w[0]) > 1.02f);
  });
}

BOOST_AUTO_TEST_CASE(another_rank_takes_the_centre_over) {
  std::vector<double> centre;
  threads::run(3, [&](threads::communicator& comm) {
    auto rest = comm.split(comm.rank() == 0 ? 0 : 1);
    toy_model<double> m;
    optimizer opt{m.parameters(), nesterov, 0.01, elastic{.period = 2}, comm, {.batch = per_worker{8}}};
    opt.handshake();
    if (comm.rank() == 0) {
      opt.serve();
      centre = m.all();
      opt.finish();
      return;
    }
    for (int k = 0; k < 6; ++k) {
      m.backward(run_of(8 * k, 8));
      opt.step(8);
    }
    opt.finish();
    auto const own = m.all();
    opt.resize(rest);
    opt.handshake();
    LIMBER_CHECK(m.all() == (comm.rank() == 1 ? centre : own));
    LIMBER_CHECK(opt.now().steps == 6);
    if (comm.rank() == 1) return opt.serve();
    m.backward(run_of(0, 8));
    opt.step(8);
    opt.finish();
    LIMBER_CHECK(opt.now().steps == 7);
  });
}

BOOST_AUTO_TEST_CASE(buffers_are_averaged_by_samples_at_the_end) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<float> m;
    std::vector<float> statistics{0};
    optimizer opt{groups(parameter_group{m.parameters(), nesterov}, buffers{{{"statistics", statistics}}}),
                  0.001,
                  elastic{.period = 3},
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

BOOST_AUTO_TEST_CASE(nobody_hangs_when_somebody_throws) {
  for (int const who : {0, 1}) {
    auto const message = message_of([&] {
      threads::run(3, [&](threads::communicator& comm) {
        toy_model<float> m;
        optimizer opt{m.parameters(), nesterov, 0.001, elastic{.period = 2}, comm, {.batch = per_worker{4}}};
        if (comm.rank() == 0)
          return opt.serve([&](step_report const&) {
            if (who == 0 && opt.now().steps > 5) throw std::runtime_error("out of luck");
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

BOOST_AUTO_TEST_CASE(bad_choices_are_refused_by_name) {
  BOOST_TEST(has(message_of([] { (void)elastic{.moving_rate = 2}.parts(); }), "moving_rate", "2"));
  BOOST_TEST(has(message_of([] { (void)elastic{.period = 0}.parts(); }), "period", "0"));
  BOOST_TEST(has(message_of([] { (void)elastic{.server = -1}.parts(); }), "server", "-1"));
  BOOST_TEST(has(message_of([] { (void)elastic{.at_merge = sync::moments::average}.parts(); }), "average"));
}

// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize
// timeout: 240
#define BOOST_TEST_MODULE limber.optimizer.recover_strategies
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/mortal.hpp>
#include <support/toy_model.hpp>

#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <thread>

using namespace limber;
using namespace limber::testing;

namespace {

/// Who dies at which of its events, who is told of a failure that the others do not see, and who comes.
struct script {
  int workers = 4;
  std::map<int, i64> deaths{};  // worker → event, counted from 1
  std::map<int, i64> faints{};
  int joiners = 0;
  i64 calls = 40;
  i64 quiet = 0;  // last steps, at rate 0
  int last = -1;  // dies in its last call, once all others are about to finish
};

struct ending {
  bool died = false;
  std::vector<float> model;
  std::map<std::string, std::vector<double>> pieces;
  progress now;
  i64 events = 0;
  int recoveries = 0;
  // When the rate had become 0, and how many recoveries it was after.
  std::vector<float> still;
  int still_after = -1;
};

/// ½ mean (w·x + b − y)² over samples that nobody trains on.
double loss_of(std::vector<float> const& model) {
  double sum = 0;
  for (i64 s = 5'000'000; s < 5'000'064; ++s) {
    double e = static_cast<double>(model.back()) - 1 - toy_model<float>::uniform(s, 99);
    for (i64 k = 0; k < toy_model<float>::features; ++k)
      e += (static_cast<double>(model[static_cast<std::size_t>(k)]) - 0.2 * static_cast<double>(k)) *
           (toy_model<float>::uniform(s, k) + 0.3);
    sum += e * e / 128;
  }
  return sum;
}

template <class Optimizer>
std::map<std::string, std::vector<double>> pieces_of(Optimizer& opt) {
  std::map<std::string, std::vector<double>> out;
  opt.visit([&](state_piece const& p) {
    auto& values = out[p.name];
    for (i64 k = 0; k < p.data.length; ++k) {
      if (p.data.type == dtype::f32) values.push_back(reinterpret_cast<float const*>(p.data.data)[k]);
      if (p.data.type == dtype::f64) values.push_back(reinterpret_cast<double const*>(p.data.data)[k]);
    }
  });
  return out;
}

/// Trains: paced strategies until so many updates are made, others so many calls each, whoever serves.
template <class S>
std::vector<ending> run(script const& plan, S const& strategy) {
  int const n = plan.workers + plan.joiners;
  hall meeting(5);
  std::vector<ending> ends(static_cast<std::size_t>(n));
  std::vector<std::string> failures(ends.size());
  std::atomic<int> finishing = 0;
  auto worker = [&](int id) {
    ending& end = ends[static_cast<std::size_t>(id)];
    lifeline life;
    if (plan.deaths.contains(id)) life.left = plan.deaths.at(id);
    if (plan.faints.contains(id)) life.faint = plan.faints.at(id);
    std::deque<mortal_threads> comms;
    toy_model<float> m;
    bool const joins = id >= plan.workers;
    if (joins) std::ranges::fill(m.w, 77.f);
    comms.emplace_back(joins ? meeting.join(id) : meeting.enter(id, plan.workers), &life);
    int attempts = 0;
    options o;
    o.batch = per_worker{4};
    o.buckets.first_bytes = o.buckets.bytes = 64;  // several buckets
    auto const rate = [&](progress const& now) {
      return plan.quiet == 0 || now.steps < plan.calls - plan.quiet ? 0.02 : 0.0;
    };
    optimizer opt{m.parameters(), sgd{.momentum = 0.5}, rate, strategy, comms.back(), o};
    int const server = strategy.parts().server();
    bool broken = joins;
    i64 calls = 0;
    auto const next = [&] {
      if (opt.lockstep()) {
        if (opt.now().steps >= plan.calls) return false;
      } else if (calls >= plan.calls) {
        return false;
      }
      ++calls;
      if (id == plan.last && calls == plan.calls) {
        auto const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        while (finishing < n - 1 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
        if (finishing < n - 1) throw std::runtime_error("the others do not come to their end");
        life.left = 1;
      }
      m.backward(run_of(10000 * id + 4 * calls, 4));
      // Otherwise a worker is at its end before the others have begun.
      if (!opt.lockstep()) std::this_thread::sleep_for(std::chrono::microseconds(100));
      opt.step(4);
      if (opt.lockstep() && opt.now().steps == plan.calls - plan.quiet) {
        end.still = m.all();
        end.still_after = end.recoveries;
      }
      return true;
    };
    for (bool done = false; !done;) {
      try {
        if (broken) {
          auto const r = opt.recover(comms.back());
          ++end.recoveries;
          if (std::ranges::find(r.joined, comms.back().rank()) != r.joined.end()) end.still_after = -1;
        }
        broken = false;
        opt.handshake();
        if (server >= 0 && comms.back().rank() == server)
          opt.serve();
        else if (next())
          continue;
        else {
          ++finishing;
          opt.finish();
        }
        // Nobody is cut off here: he would find that the others, who were not, have gone home.
        comms.back().inner().barrier();
        done = true;
      } catch (error const& e) {
        if (e.where().engine != "threads" && e.where().engine != "mortal") throw;  // nothing mends that
        // Two failures and a newcomer make no more; else it would go on for ever, a deadline each time.
        if (++attempts == 8) throw;
        if (std::getenv("LIMBER_LOG")) std::fprintf(stderr, "w%d: %s\n", id, e.what());
        comms.back().revoke("somebody has failed");
        comms.emplace_back(meeting.next(id), &life);
        broken = true;
      }
    }
    end.model = m.all();
    end.now = opt.now();
    end.pieces = pieces_of(opt);
    end.events = life.seen;
  };
  std::vector<std::thread> team;
  for (int id = 0; id < n; ++id)
    team.emplace_back([&, id] {
      auto& end = ends[static_cast<std::size_t>(id)];
      try {
        worker(id);
      } catch (death const&) { end.died = true; } catch (std::exception const& e) {
        failures[static_cast<std::size_t>(id)] = e.what();
      }
      meeting.leave(id);
    });
  for (auto& t : team) t.join();
  for (auto const& f : failures) BOOST_REQUIRE_EQUAL(f, "");
  return ends;
}

/// Failures of all kinds at every moment, a few at a time; calls check(endings of the survivors, what).
template <class S, class F>
void in_every_case(S const& strategy, std::vector<int> const& victims, i64 stride, F const& check,
                   i64 quiet = 0) {
  auto const calm = run({.quiet = quiet}, strategy);
  double const start = loss_of(toy_model<float>{}.all());
  double worst = 0;
  for (auto const& e : calm) worst = std::max(worst, loss_of(e.model));
  BOOST_TEST(worst < 0.2 * start);
  int recoveries = 0;
  for (int const victim : victims)
    for (i64 k = 1; k <= calm[static_cast<std::size_t>(victim)].events; k += stride) {
      script plan{.quiet = quiet};
      (k / stride % 3 == 1 ? plan.faints : plan.deaths)[victim] = k;
      // Twice: another one is cut off or dies soon afterwards, or in the midst of the recovery.
      if (k / stride % 2 == 0)
        (k / stride % 4 == 0 ? plan.faints : plan.deaths)[(victim + 2) % 4] = k + 3 + k % 11;
      if (k / stride % 5 == 2) plan.joiners = 1;
      auto const ends = run(plan, strategy);
      std::vector<ending> left;
      for (auto const& e : ends)
        if (!e.died) left.push_back(e);
      std::string const what = text("victim ", victim, " at event ", k);
      BOOST_REQUIRE(left.size() >= 2);
      for (auto const& e : left) {
        recoveries += e.recoveries;
        for (auto const& [name, values] : e.pieces)
          for (double const x : values) BOOST_TEST(std::isfinite(x), what << ": " << name << " is " << x);
        double const loss = loss_of(e.model);
        BOOST_TEST(loss < std::max(3 * worst, 0.3 * start),
                   what << ": loss " << loss << ", undisturbed " << worst << ", at the start " << start);
      }
      check(left, what);
    }
  BOOST_TEST(recoveries > 10);
}

void expect_one_model(std::vector<ending> const& left, std::string const& what) {
  for (auto const& e : left) {
    BOOST_TEST(same_bits(e.model, left[0].model), what << ": two models");
    BOOST_TEST(e.now.steps == left[0].now.steps, what);
    BOOST_TEST(e.now.samples == left[0].now.samples, what);
  }
}

void expect_one_centre(std::vector<ending> const& left, std::string const& what) {
  for (std::string const name : {"w", "b"})
    for (auto const& e : left) {
      auto const& mine = e.pieces.at("sync/merge0/centre/" + name);
      BOOST_TEST(!mine.empty());
      BOOST_TEST(mine == left[0].pieces.at("sync/merge0/centre/" + name), what << ": two centres");
    }
}

std::vector<double> sum_of(std::vector<ending> const& left, std::vector<float> ending::*model) {
  std::vector<double> sum((left[0].*model).size());
  for (auto const& e : left)
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += static_cast<double>((e.*model)[k]);
  return sum;
}

/// In steps at rate 0 that no failure fell into, the sum of the models does not change.
bool expect_kept_mean(std::vector<ending> const& left, std::string const& what) {
  for (auto const& e : left)
    if (e.still_after != e.recoveries) return false;
  BOOST_TEST(distance(sum_of(left, &ending::model), sum_of(left, &ending::still)) < 1e-6, what);
  return true;
}

/// The parameters are x / w, also where a round or the end was cut off.
void expect_ratios(std::vector<ending> const& left, std::string const& what) {
  for (auto const& e : left) {
    double const w = e.pieces.at("sync/merge0/w").at(0);
    BOOST_TEST(w > 0, what);
    auto const& x = e.pieces.at("sync/merge0/x/w");
    auto const& z = e.pieces.at("parameter/w");
    BOOST_REQUIRE(x.size() == z.size());
    for (std::size_t k = 0; k < x.size(); ++k)
      BOOST_TEST(std::abs(x[k] / w - z[k]) < 1e-5, what << ": x " << x[k] << ", w " << w << ", z " << z[k]);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(elastic_averaging_goes_on_with_one_centre) {
  in_every_case(sync::elastic_averaging{.period = 3}, {0, 3}, 13, [](auto const& left, auto const& what) {
    expect_one_centre(left, what);
    for (auto const& e : left) BOOST_TEST(e.now.samples == left[0].now.samples, what);
  });
}

BOOST_AUTO_TEST_CASE(gossip_keeps_the_mean_of_the_survivors) {
  int kept = 0;
  in_every_case(
      sync::gossip{}, {0, 2}, 41,
      [&](auto const& left, auto const& what) {
        kept += expect_kept_mean(left, what);
        for (auto const& e : left)
          BOOST_TEST(e.pieces.at("sync/merge0/round") == left[0].pieces.at("sync/merge0/round"), what);
      },
      6);
  BOOST_TEST(kept > 3);
}

BOOST_AUTO_TEST_CASE(push_sum_keeps_positive_weights) {
  for (i64 const overlap : {0, 1, 2}) {
    int kept = 0;
    in_every_case(
        sync::push_sum{.overlap = overlap}, {1, 3}, overlap == 0 ? 61 : 17,
        [&](auto const& left, auto const& what) {
          expect_ratios(left, text(what, ", overlap ", overlap));
          if (overlap == 0) kept += expect_kept_mean(left, what);
        },
        6);
    BOOST_TEST((overlap > 0 || kept > 3));
  }
}

BOOST_AUTO_TEST_CASE(push_sum_shows_what_it_took_in_before_its_end_was_cut_off) {
  // Whom the dead worker owes its last message has taken in all that are older.
  for (i64 const overlap : {2, 3})
    for (int const last : {0, 1, 3}) {
      auto const ends = run({.quiet = 1, .last = last}, sync::push_sum{.overlap = overlap});
      std::vector<ending> left;
      for (auto const& e : ends)
        if (!e.died) left.push_back(e);
      BOOST_TEST(left.size() == 3u);
      for (auto const& e : left) BOOST_TEST(e.recoveries == 1);
      expect_ratios(left, text("rank ", last, " dies last, overlap ", overlap));
    }
}

namespace {

// A death right after an exchange.
template <class S>
void expect_own_buffers(S strategy, int server, char const* name) {
  int const n = 3;
  std::barrier trained(server < 0 ? n : n - 1);
  threads::run(n, [&](threads::communicator& comm) {
    toy_model<float> m;
    std::vector<float> statistics{0};
    optimizer opt{groups(parameter_group{m.parameters(), sgd{}}, buffers{{{"statistics", statistics}}}), 0.01,
                  strategy, comm, options{.batch = per_worker{4}}};
    auto const mine = static_cast<float>(10 * comm.rank());
    try {
      if (comm.rank() == server) opt.serve();
      for (i64 k = 0; k < 4; ++k) {
        m.backward(run_of(4 * k, 4));
        opt.step(4);
      }
      LIMBER_CHECK(!opt.open().any());
      trained.arrive_and_wait();
      statistics[0] = mine;
      comm.revoke("over");
    } catch (error const&) {  // of the server
      statistics[0] = mine;
    }
    auto next = comm.shrink({});
    opt.recover(next);
    {
      std::scoped_lock const lock(check_mutex());
      BOOST_TEST(statistics[0] == mine, name << ", rank " << comm.rank());
    }
    if (next.rank() == server)
      opt.serve();
    else
      opt.finish();
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(where_models_stay_apart_buffers_do) {
  expect_own_buffers(sync::gossip{}, -1, "gossip");
  expect_own_buffers(sync::elastic_averaging{.period = 2}, -1, "elastic averaging");
  expect_own_buffers(sync::asynchronous_gossip{}, -1, "asynchronous gossip");
  expect_own_buffers(sync::asynchronous_elastic_averaging{.period = 2}, 0, "asynchronous elastic averaging");
}

BOOST_AUTO_TEST_CASE(abs_sgd_ends_with_one_model) {
  in_every_case(sync::abs_sgd{.max_micro_batches = 2}, {0, 3}, 37,
                [](auto const& left, auto const& what) { expect_one_model(left, what); });
}

BOOST_AUTO_TEST_CASE(a_parameter_server_or_its_workers_may_die) {
  in_every_case(sync::parameter_server{}, {0, 3}, 17,
                [](auto const& left, auto const& what) { expect_one_model(left, what); });
  in_every_case(sync::parameter_server{.bound = 2, .softsync = 2}, {0, 3}, 29,
                [](auto const& left, auto const& what) { expect_one_model(left, what); });
}

BOOST_AUTO_TEST_CASE(asynchronous_gossip_goes_on) {
  for (auto const how : {sync::gossip_how::push, sync::gossip_how::pull})
    in_every_case(sync::asynchronous_gossip{.how = how}, {0, 2}, 13, [](auto const&, auto const&) {});
}

BOOST_AUTO_TEST_CASE(asynchronous_elastic_averaging_goes_on_with_one_centre) {
  auto const start = loss_of(toy_model<float>{}.all());
  in_every_case(sync::asynchronous_elastic_averaging{.period = 2}, {0, 3}, 17,
                [&](auto const& left, auto const& what) {
                  expect_one_centre(left, what);
                  for (auto const& e : left) {
                    BOOST_TEST(e.now.steps == left[0].now.steps, what);
                    BOOST_TEST(e.now.samples == left[0].now.samples, what);
                  }
                  // The centre goes on from where it was seen last.
                  std::vector<float> centre;
                  for (std::string const name : {"w", "b"})
                    for (double const x : left[0].pieces.at("sync/merge0/centre/" + name))
                      centre.push_back(static_cast<float>(x));
                  BOOST_TEST(loss_of(centre) < 0.5 * start, what);
                });
}

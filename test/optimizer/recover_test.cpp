// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize memory
// timeout: 240
#define BOOST_TEST_MODULE limber.optimizer.recover
#include <limber/batch/policies.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/mortal.hpp>
#include <support/toy_model.hpp>

#include <cmath>
#include <deque>
#include <optional>
#include <thread>

using namespace limber;
using namespace limber::testing;

namespace {

/// Who dies at which of its events, and who comes when.
struct script {
  int workers = 3;
  std::map<int, i64> deaths{};  // worker → event, counted from 1
  int joiners = 0;              // wait from the start, and are let in when a group fails
  i64 steps = 12;
};

struct ending {
  bool died = false;
  std::vector<float> model;
  progress now;
  i64 events = 0;
  int recoveries = 0;
};

/// Trains until `steps` updates are made, dealing samples by the samples that were applied.
template <class S, class R>
std::vector<ending> run(script const& plan, S strategy, R const& rule, options base) {
  int const n = plan.workers + plan.joiners;
  hall meeting(10);
  std::vector<ending> ends(static_cast<std::size_t>(n));
  std::vector<std::string> failures(ends.size());
  auto worker = [&](int id) {
    ending& end = ends[static_cast<std::size_t>(id)];
    lifeline life{plan.deaths.contains(id) ? plan.deaths.at(id) : -1};
    std::deque<mortal_threads> comms;
    toy_model<float> m;
    bool const joins = id >= plan.workers;
    if (joins) std::ranges::fill(m.w, 77.f);
    comms.emplace_back(joins ? meeting.join(id) : meeting.enter(id, plan.workers), &life);
    optimizer opt{m.parameters(), rule, 0.02, strategy, comms.back(), base};
    bool broken = joins;
    auto guarded = [&](auto const& f) {
      try {
        if (broken) {
          (void)opt.recover(comms.back());
          ++end.recoveries;
          broken = false;
        }
        f();
        return true;
      } catch (error const&) {
        comms.emplace_back(meeting.next(id), &life);
        broken = true;
        return false;
      }
    };
    while (opt.now().steps < plan.steps) {
      guarded([&] {
        opt.handshake();
        auto const& p = opt.planned();
        int const rank = comms.back().rank(), size = comms.back().size();
        if (p.shards > 0) {
          for (i64 call = 0; call < p.calls_per_update; ++call) {
            i64 const shard = shard_of(p, size, rank, call), each = p.total / p.shards;
            auto const mine = shard < 0 ? std::vector<i64>{} : run_of(opt.now().samples + shard * each, each);
            m.backward(mine);
            opt.step(std::ssize(mine));
          }
          return;
        }
        i64 first = opt.now().samples;
        for (int r = 0; r < rank; ++r) first += p.share[static_cast<std::size_t>(r)];
        auto const mine = run_of(first, p.share[static_cast<std::size_t>(rank)]);
        m.backward(mine);
        opt.step(std::ssize(mine));
      });
    }
    while (!guarded([&] { opt.finish(); })) {}
    while (!guarded([&] { comms.back().barrier(); })) {}
    end.model = m.all();
    end.now = opt.now();
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

options with(any_policy batch) {
  options o;
  o.batch = std::move(batch);
  return o;
}

/// Every moment of one worker's life, a few at a time.
template <class F>
void at_every_moment(i64 events, i64 stride, F const& f) {
  for (i64 k = 1; k <= events; k += stride) f(k);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_death_at_any_moment_changes_no_bit_of_a_run_in_logical_shards) {
  auto const rule = sgd{.momentum = 0.9};
  options o = with(logical_shards{4, 6});
  o.buckets.first_bytes = o.buckets.bytes = 64;  // several buckets
  auto const calm = run({.steps = 6}, sync::allreduce{}, rule, o);
  for (int victim : {0, 1, 2})
    at_every_moment(calm[static_cast<std::size_t>(victim)].events, 7, [&](i64 k) {
      auto const ends = run({.deaths = {{victim, k + victim}}, .steps = 6}, sync::allreduce{}, rule, o);
      for (int id = 0; id < 3; ++id) {
        ending const& e = ends[static_cast<std::size_t>(id)];
        if (e.died) continue;
        BOOST_TEST(same_bits(e.model, calm[0].model),
                   "victim " << victim << " at event " << k << ": rank " << id << " ended elsewhere");
        BOOST_TEST(e.now.samples == calm[0].now.samples);
      }
    });
}

BOOST_AUTO_TEST_CASE(two_deaths_and_a_newcomer_leave_one_model_among_the_survivors) {
  auto const rule = clipped{adamw{}, 1.0};
  options o = with(fixed{24});
  o.buckets.first_bytes = o.buckets.bytes = 64;
  int recovered = 0;
  for (i64 k = 3; k < 60; k += 5) {
    auto const ends = run({.workers = 4, .deaths = {{0, k}, {2, k + k % 7}}, .joiners = 1, .steps = 8},
                          sync::allreduce{}, rule, o);
    ending const* first = nullptr;
    for (auto const& e : ends) {
      if (e.died) continue;
      if (!first) first = &e;
      recovered += e.recoveries;
      BOOST_TEST(same_bits(e.model, first->model));
      BOOST_TEST(e.now.steps == 8);
      BOOST_TEST(e.now.samples == 8 * 24);
      BOOST_TEST(e.now.calls == first->now.calls);
    }
    BOOST_REQUIRE(first);
  }
  BOOST_TEST(recovered > 12);
}

// Accumulated calls are void as a whole: no sample of theirs is in the model.
BOOST_AUTO_TEST_CASE(an_open_round_of_accumulated_gradients_is_void) {
  auto const rule = sgd{.momentum = 0.9};
  options o = with(fixed{24});
  for (i64 k = 4; k < 40; k += 3) {
    auto const ends = run({.deaths = {{1, k}}, .steps = 5}, sync::allreduce{.period = 3}, rule, o);
    BOOST_TEST(same_bits(ends[0].model, ends[2].model));
    BOOST_TEST(ends[0].now.steps == 5);
    BOOST_TEST(ends[0].now.samples == 5 * 3 * 24);
  }
}

BOOST_AUTO_TEST_CASE(strategies_that_merge_globally_end_alike) {
  auto check = [](auto const& strategy, std::string const& name) {
    auto const rule = ema{sgd{.momentum = 0.9}, 0.9};
    options o = with(per_worker{4});
    o.buckets.first_bytes = o.buckets.bytes = 64;
    auto const calm = run({.workers = 4, .steps = 12}, strategy, rule, o);
    for (int victim : {0, 3})
      at_every_moment(calm[0].events, 9, [&](i64 k) {
        auto const ends =
            run({.workers = 4, .deaths = {{victim, k}}, .joiners = k % 2 == 0 ? 1 : 0}, strategy, rule, o);
        ending const* first = nullptr;
        for (auto const& e : ends) {
          if (e.died) continue;
          if (!first) first = &e;
          BOOST_TEST(same_bits(e.model, first->model),
                     name << ": victim " << victim << " at event " << k << ": two models");
          BOOST_TEST(e.now.calls == first->now.calls);
          BOOST_TEST(e.now.samples == first->now.samples);
          for (float const x : e.model) BOOST_TEST(std::isfinite(x));
        }
        BOOST_REQUIRE(first);
        // Not a fresh start: as near to the end as an undisturbed run is.
        BOOST_TEST(distance(first->model, calm[0].model) < 0.5, name << " at event " << k);
      });
  };
  check(sync::local{.period = 3}, "local");
  check(sync::diloco{.period = 3}, "diloco");
  check(sync::hierarchical{.block_size = 2, .period = 2, .block_periods = 2}, "hierarchical");
  check(sync::streaming_diloco{.period = 4, .fragments = 2, .late = 1}, "streaming_diloco");
}

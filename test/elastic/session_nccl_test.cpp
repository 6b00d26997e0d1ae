// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// timeout: 240
#define BOOST_TEST_MODULE limber.elastic.session_nccl
#include <limber/elastic/session.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <comm/nccl_fake.hpp>
#include <elastic/ledger.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using namespace limber;
using namespace limber::test;
using limber::testing::hurried_session;
using limber::testing::ledger_model;
using limber::testing::ledger_options;

namespace {

/// Thrown to end a worker: no std::exception.
struct death {};

struct worker_end {
  std::vector<float> model;
  i64 samples = 0, generation = 0;
  int connected = 0, shrunk = 0;
  bool died = false;
};

struct script {
  int workers = 4, joiners = 0;
  std::map<int, i64> deaths;  // worker → call of `compute` in which it dies
  i64 size = 240;
  int pause = 1;
};

std::vector<worker_end> train(script const& plan) {
  int const n = plan.workers + plan.joiners;
  auto const world = std::make_shared<fake_world>();
  world->devices = n;
  elastic::memory_store store;
  std::vector<worker_end> ends(static_cast<std::size_t>(n));
  std::vector<std::string> failures(ends.size());
  std::mutex guard;
  std::vector<std::shared_ptr<void>> remains;  // a dead process closes nothing
  std::atomic<bool> begun = false;

  auto const work = [&](int id) {
    worker_end& end = ends[static_cast<std::size_t>(id)];
    auto how = hurried_session(id, plan.workers, 2);
    how.shrink = true;
    auto const connect = [&](elastic::membership_view const& r) {
      ++end.connected;
      nccl::options o{.deadline = 1, .rendezvous_deadline = 5, .device = id};
      o.pause = [] { std::this_thread::sleep_for(std::chrono::microseconds(200)); };
      return fake_communicator(facts_of(r.rank, r.size()), nccl::kv_store_in(store, r.prefix), o,
                               fake_engine(world, id));
    };
    if (id >= plan.workers) begun.wait(false);
    auto const session =
        std::make_shared<elastic::session<elastic::memory_store, decltype(connect)>>(store, connect, how);
    {
      std::scoped_lock const lock(guard);
      remains.push_back(session);
    }
    ledger_model m(plan.size);  // in host memory, which the communicator stages
    optimizer opt{m.parameters(),
                  sgd{},
                  0.5,
                  sync::allreduce{},
                  session->communicator(),
                  ledger_options(plan.size, fixed{12})};
    elastic::dealer samples(plan.size, 5);
    i64 calls = 0;
    session->train(
        opt, samples, [&] { return samples.epoch() == 1; },
        [&](elastic::work_assignment const& h) {
          begun = true;
          begun.notify_all();
          if (auto const at = plan.deaths.find(id); at != plan.deaths.end() && ++calls == at->second)
            throw death{};
          m.backward(h.samples);
          std::this_thread::sleep_for(std::chrono::milliseconds(plan.pause));
        });
    end.model = m.w;
    end.samples = opt.now().samples;
    end.generation = session->now().generation;
    std::scoped_lock const lock(world->mutex);
    end.shrunk = static_cast<int>(std::ranges::count(world->log[id], "shrink"));
  };
  std::vector<std::thread> team;
  for (int id = 0; id < n; ++id)
    team.emplace_back([&, id] {
      auto const k = static_cast<std::size_t>(id);
      try {
        work(id);
      } catch (death const&) { ends[k].died = true; } catch (std::exception const& e) {
        failures[k] = e.what();
      }
    });
  for (auto& t : team) t.join();
  remains.clear();
  for (auto const& f : failures) BOOST_REQUIRE_EQUAL(f, "");
  for (auto const& m : world->misuse) BOOST_TEST(m == "");
  return ends;
}

void expect_consumed_once(std::vector<worker_end> const& ends, script const& plan) {
  worker_end const* first = nullptr;
  for (auto const& e : ends) {
    if (e.died) continue;
    if (!first) first = &e;
    BOOST_TEST(e.samples == plan.size);
    BOOST_TEST(e.model == first->model);
    BOOST_TEST(std::ranges::count(e.model, 0.f) == 0);
  }
  BOOST_REQUIRE(first);
}

}  // namespace

BOOST_AUTO_TEST_CASE(survivors_go_on_in_a_communicator_that_nccl_shrank) {
  script const plan{.deaths = {{1, 3}, {3, 9}}};
  auto const ends = train(plan);
  expect_consumed_once(ends, plan);
  for (int const id : {0, 2}) {
    auto const& e = ends[static_cast<std::size_t>(id)];
    BOOST_TEST(e.connected == 1);
    BOOST_TEST(e.shrunk == 2);
    BOOST_TEST(e.generation == 3);
  }
}

BOOST_AUTO_TEST_CASE(two_that_die_at_once_are_both_excluded) {
  script const plan{.deaths = {{0, 4}, {2, 4}}};
  auto const ends = train(plan);
  expect_consumed_once(ends, plan);
  BOOST_TEST(ends[1].connected == 1);
  BOOST_TEST(ends[1].model.size() == 240u);
}

BOOST_AUTO_TEST_CASE(a_joiner_makes_all_connect_under_a_new_id) {
  script const plan{.workers = 2, .joiners = 1, .deaths = {}, .size = 12 * 40, .pause = 20};
  auto const ends = train(plan);
  expect_consumed_once(ends, plan);
  BOOST_TEST(ends[0].connected == 2);
  BOOST_TEST(ends[0].shrunk == 0);
  BOOST_TEST(ends[2].generation >= 2);
}

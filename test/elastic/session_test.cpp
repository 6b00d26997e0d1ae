// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize memory
// timeout: 240
#define BOOST_TEST_MODULE limber.elastic.session
#include <limber/batch/policies.hpp>
#include <limber/comm/threads.hpp>
#include <limber/elastic/session.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <elastic/ledger.hpp>
#include <support/checks.hpp>
#include <support/mortal.hpp>
#include <support/toy_model.hpp>

#include <atomic>
#include <cstdlib>
#include <numeric>
#include <thread>

using namespace limber;
using namespace limber::testing;

namespace {

/// Reports the ranks whose thread has ended, as an engine reports broken connections.
struct link : mortal_threads {
  std::vector<int> workers;  // by rank
  std::vector<std::atomic<bool>> const* dead;

  [[nodiscard]] std::vector<int> broken() const {
    std::vector<int> out;
    for (std::size_t k = 0; k < workers.size(); ++k)
      if ((*dead)[static_cast<std::size_t>(workers[k])]) out.push_back(static_cast<int>(k));
    return out;
  }
  [[nodiscard]] link shrink(std::span<int const> lost) {
    std::vector<int> left;
    for (std::size_t k = 0; k < workers.size(); ++k)
      if (!std::ranges::binary_search(lost, static_cast<int>(k))) left.push_back(workers[k]);
    return {mortal_threads::shrink(lost), std::move(left), dead};
  }
};

struct script {
  int workers = 3;
  std::map<int, i64> deaths{};  // worker → event
  std::map<int, i64> sleeps{};  // worker → call in which it sleeps too long
  int joiners = 0;              // that wait to be admitted from the start
  i64 size = 192, epochs = 1;
  int pause = 1;  // milliseconds that a call computes
  bool shrink = false;
};
struct ending {
  bool died = false;
  std::vector<float> model;
  progress now;
  i64 events = 0, fenced = 0;
  i64 generation = 0;
  int connected = 0;  // number of calls of `connect`
};

class world_registry {
 public:
  threads::communicator join_world(elastic::membership_view const& r) {
    std::scoped_lock const lock(mutex_);
    auto& w = worlds_[r.prefix];
    if (!w) w = std::make_unique<threads::world>(r.size(), threads::options{.deadline = 1});
    return w->communicator(r.rank);
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<threads::world>> worlds_;
};

template <class S>
std::vector<ending> run(script const& plan, S strategy, any_policy batch, double rate = 0.5) {
  int const n = plan.workers + plan.joiners;
  elastic::memory_store store;
  world_registry worlds;
  std::vector<ending> ends(static_cast<std::size_t>(n));
  std::vector<std::string> failures(ends.size());
  std::vector<std::atomic<bool>> dead(ends.size());
  std::atomic<bool> begun = false;
  auto worker = [&](int id) {
    ending& end = ends[static_cast<std::size_t>(id)];
    lifeline life{plan.deaths.contains(id) ? plan.deaths.at(id) : -1};
    auto how = hurried_session(id, plan.workers, 1);
    how.log = [&, log = how.log](std::string const& line) {
      log(line);
      end.fenced += line.find("without this worker") != std::string::npos ? 1 : 0;
    };
    how.shrink = plan.shrink;
    auto connect = [&](elastic::membership_view const& r) {
      ++end.connected;
      std::vector<int> workers;
      for (auto const& name : r.ids) workers.push_back(std::atoi(name.c_str() + 1));
      return link{{worlds.join_world(r), &life}, std::move(workers), &dead};
    };
    if (id >= plan.workers) begun.wait(false);
    elastic::session session(store, connect, how);
    ledger_model m(plan.size);
    optimizer opt{
        m.parameters(), sgd{}, rate, strategy, session.communicator(), ledger_options(plan.size, batch)};
    elastic::dealer samples(plan.size, 5);
    i64 calls = 0;
    session.train(
        opt, samples, [&] { return samples.epoch() == plan.epochs; },
        [&](elastic::work_assignment const& h) {
          begun = true;
          begun.notify_all();
          m.backward(h.samples);
          std::this_thread::sleep_for(std::chrono::milliseconds(plan.pause));
          if (plan.sleeps.contains(id) && ++calls == plan.sleeps.at(id))
            std::this_thread::sleep_for(std::chrono::milliseconds(1800));
        });
    end.model = m.w;
    end.now = opt.now();
    end.events = life.seen;
    end.generation = session.now().generation;
  };
  std::vector<std::thread> team;
  for (int id = 0; id < n; ++id)
    team.emplace_back([&, id] {
      auto const k = static_cast<std::size_t>(id);
      try {
        worker(id);
      } catch (death const&) { ends[k].died = true; } catch (std::exception const& e) {
        failures[k] = e.what();
      }
      dead[k] = true;
    });
  for (auto& t : team) t.join();
  for (auto const& f : failures) BOOST_REQUIRE_EQUAL(f, "");
  return ends;
}

void expect_consumed_once(std::vector<ending> const& ends, script const& plan, std::string const& what) {
  ending const* first = nullptr;
  for (auto const& e : ends) {
    if (e.died) continue;
    if (!first) first = &e;
    BOOST_TEST(e.now.samples == plan.epochs * plan.size, what << ": " << e.now.samples << " samples");
    BOOST_TEST(same_bits(e.model, first->model), what << ": two models");
    auto const missing = std::ranges::count(e.model, 0.f);
    BOOST_TEST(missing == 0, what << ": " << missing << " samples are in nobody's model");
  }
  BOOST_REQUIRE(first);
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_undisturbed_run_consumes_every_sample_once) {
  script const plan{};
  expect_consumed_once(run(plan, sync::allreduce{}, fixed{10}), plan, "fixed");
  expect_consumed_once(run(plan, sync::local{.period = 3}, per_worker{5}), plan, "local");
  expect_consumed_once(run(plan, sync::allreduce{}, logical_shards{4, 5}), plan, "shards");
}

BOOST_AUTO_TEST_CASE(every_sample_is_consumed_once_after_any_death) {
  auto check = [](auto strategy, any_policy const& batch, std::string const& name) {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      script plan{.workers = 3 + static_cast<int>(seed % 2)};
      auto const drawn = [&](std::uint64_t k, i64 n) {
        return static_cast<i64>(random_bits(91, seed, k) % static_cast<std::uint64_t>(n));
      };
      plan.deaths[static_cast<int>(seed % 3)] = 1 + drawn(0, 160);
      if (seed % 2 == 1) plan.deaths[static_cast<int>((seed + 1) % 3)] = 1 + drawn(1, 160);
      expect_consumed_once(run(plan, strategy, batch), plan, text(name, ", seed ", seed));
    }
  };
  check(sync::allreduce{}, fixed{10}, "allreduce");
  check(sync::allreduce{.period = 3}, per_worker{4}, "accumulation");
  check(sync::local{.period = 4}, per_worker{4}, "local");
  check(sync::allreduce{}, logical_shards{4, 5}, "shards");
}

BOOST_AUTO_TEST_CASE(a_death_changes_no_bit_of_a_run_in_logical_shards) {
  script plan{.epochs = 2};
  auto const calm = run(plan, sync::allreduce{}, logical_shards{4, 5}, 0.3);
  for (i64 k : {20, 77, 130, 210}) {
    plan.deaths = {{static_cast<int>(k % 3), k}};
    for (auto const& e : run(plan, sync::allreduce{}, logical_shards{4, 5}, 0.3))
      if (!e.died) BOOST_TEST(same_bits(e.model, calm[0].model), "death at event " << k);
  }
}

BOOST_AUTO_TEST_CASE(survivors_shrink_and_joiners_make_all_connect) {
  int shrank = 0;
  for (i64 k : {9, 40, 77, 130}) {
    script const plan{.workers = 4, .deaths = {{static_cast<int>(k % 4), k}, {3, 2 * k}}, .shrink = true};
    auto const ends = run(plan, sync::allreduce{}, fixed{10});
    expect_consumed_once(ends, plan, text("shrink, death at event ", k));
    // A worker may die in the middle of a shrink: then the generation ends, and the next one connects.
    bool connected_once = true;
    for (auto const& e : ends) connected_once = connected_once && (e.died || e.connected == 1);
    shrank += connected_once ? 1 : 0;
  }
  BOOST_TEST(shrank >= 2);
  script const grows{.workers = 2, .joiners = 1, .size = 384, .pause = 20, .shrink = true};
  auto const ends = run(grows, sync::local{.period = 3}, per_worker{4});
  expect_consumed_once(ends, grows, "joiner");
  BOOST_TEST(ends[0].connected == 2);
}

BOOST_AUTO_TEST_CASE(an_engine_that_cannot_shrink_is_not_asked_to) {
  elastic::memory_store store;
  elastic::session_options how;
  how.shrink = true;
  how.membership.poll.every = 0.002;
  struct rigid : self {
    void shrink() = delete;
  };
  auto const connect = [](elastic::membership_view const&) { return rigid{}; };
  BOOST_TEST(has(message_of([&] { elastic::session s(store, connect, how); }),
                 "shrink is set, but the communicator of this engine has none"));
}

BOOST_AUTO_TEST_CASE(a_joiner_is_admitted_and_gets_all_state) {
  script const plan{.workers = 2, .joiners = 1, .size = 384, .pause = 20};
  auto const ends = run(plan, sync::local{.period = 3}, per_worker{4});
  expect_consumed_once(ends, plan, "joiner");
  BOOST_TEST(ends[2].generation >= 2);
}

BOOST_AUTO_TEST_CASE(a_worker_that_sleeps_too_long_is_fenced_and_joins_again) {
  script const plan{.workers = 3, .sleeps = {{1, 4}}, .size = 192 * 16, .pause = 10};
  auto const ends = run(plan, sync::allreduce{}, fixed{12});
  expect_consumed_once(ends, plan, "sleeper");
  BOOST_TEST(ends[1].fenced == 1);
  BOOST_TEST(ends[0].fenced == 0);
}

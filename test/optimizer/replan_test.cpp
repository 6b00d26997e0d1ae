// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.optimizer.replan
#include <limber/batch/policies.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <array>
#include <numeric>
#include <vector>

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;

namespace {

// Every worker's own time: backward of n samples takes n / speed.
struct virtual_time {
  double now = 0;
  [[nodiscard]] clock_function clock() {
    return [this] { return now; };
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(dbs_gives_shares_in_proportion_to_speed_after_one_epoch) {
  std::array<double, 4> const speed{10, 20, 30, 40};
  threads::run(4, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    toy_model<float> m;
    virtual_time t;
    optimizer opt{
        m.parameters(), sgd{},
        0.01,           sync::allreduce{},
        comm,           options{.batch = dbs{.batch = 100}, .epoch_size = 1000, .clock = t.clock()}};
    LIMBER_CHECK(opt.planned().share == std::vector<i64>(4, 25));
    i64 first = 0;
    for (int call = 0; call < 25; ++call) {
      i64 const n = opt.planned().share[r];
      m.backward(run_of(first += 100, n));
      t.now += static_cast<double>(n) / speed[r];
      opt.step(n);
      if (call == 8) LIMBER_CHECK(opt.planned().share[0] == 25);
      if (call == 9) LIMBER_CHECK((opt.planned().share == std::vector<i64>{10, 20, 30, 40}));
    }
    LIMBER_CHECK((opt.planned().share == std::vector<i64>{10, 20, 30, 40}));
    LIMBER_CHECK(opt.now().batch.length == 0);  // the batch itself never changed: no ramp
    LIMBER_CHECK(opt.now().samples == 2500);
  });
}

BOOST_AUTO_TEST_CASE(waiting_is_not_computing) {
  // Rank 0 is slow, rank 1 spends as long inside step(), waiting: it still gets the larger share.
  threads::run(2, [&](threads::communicator& comm) {
    toy_model<float> m;
    virtual_time t;
    int asked = 0;  // inside a call of step() the clock is asked when it begins and when it ends
    auto const clock = [&] {
      if (++asked % 2 == 0 && comm.rank() == 1) t.now += 3;
      return t.now;
    };
    optimizer opt{
        m.parameters(), sgd{},
        0.01,           sync::allreduce{},
        comm,           options{.batch = dbs{.batch = 40, .replan_every = 4_steps}, .clock = clock}};
    asked = 0;
    for (int call = 0; call < 4; ++call) {
      i64 const n = opt.planned().share[static_cast<std::size_t>(comm.rank())];
      m.backward(run_of(0, n));
      t.now += static_cast<double>(n) * (comm.rank() == 0 ? 0.3 : 0.1);
      opt.step(n);
    }
    LIMBER_CHECK((opt.planned().share == std::vector<i64>{10, 30}));
  });
}

BOOST_AUTO_TEST_CASE(a_batch_that_grows_re_arms_the_ramp) {
  toy_model<float> m;
  self comm;
  optimizer opt{
      m.parameters(), sgd{},
      0.01,           sync::allreduce{},
      comm,           {.batch = increase_instead_of_decay(8, {1_epochs, 2_epochs}, 4), .epoch_size = 80}};
  for (int call = 0; call < 10; ++call) {
    m.backward(run_of(0, 8));
    opt.step(8);
  }
  BOOST_TEST(opt.planned().total == 32);
  BOOST_TEST(opt.now().batch.from == 8);
  BOOST_TEST(opt.now().batch.to == 32);
  BOOST_TEST(opt.now().batch.begin == 10);
  BOOST_TEST(opt.now().batch.length == 32);
}

BOOST_AUTO_TEST_CASE(a_rate_that_follows_the_batch_contradicts_such_a_policy) {
  toy_model<float> m;
  self comm;
  auto const make = [&](auto const& rate) {
    optimizer{
        m.parameters(), sgd{},
        rate,           sync::allreduce{},
        comm,           options{.batch = increase_instead_of_decay(8, {1_epochs}, 4), .epoch_size = 80}};
  };
  BOOST_CHECK_EXCEPTION(make(linear_scaling{.base_lr = 0.1, .base_batch = 8} * warmup(1_epochs)),
                        std::invalid_argument, limber::test::says("grows the batch", "undoes"));
  BOOST_CHECK_NO_THROW(make(warmup(1_epochs)));
}

BOOST_AUTO_TEST_CASE(other_policies_are_never_asked_again) {
  toy_model<float> m;
  self comm;
  int asked = 0;
  optimizer opt{m.parameters(), sgd{}, 0.01, sync::allreduce{}, comm, {.batch = [&](batch_facts const& f) {
                  ++asked;
                  return per_worker{4}(f);
                }}};
  opt.step(4);
  int const before = asked;
  for (int call = 0; call < 5; ++call) opt.step(4);
  BOOST_TEST(asked == before);
}

BOOST_AUTO_TEST_CASE(a_policy_that_is_asked_again_needs_workers_that_step_together) {
  threads::world two(2);
  auto comm = two.communicator(1);
  auto const make = [&](auto const& how) {
    return message_of([&] {
      toy_model<float> m;
      optimizer opt{m.parameters(), sgd{}, 0.01, how, comm, {.batch = dbs{.batch = 8}, .epoch_size = 100}};
    });
  };
  BOOST_TEST(has(make(sync::asynchronous_gossip{}), "asked again", "step together"));
  BOOST_TEST(has(make(sync::parameter_server{}), "asked again", "step together"));
  BOOST_TEST(make(sync::abs_sgd{}).empty());
  BOOST_TEST(make(sync::local{.period = 2}).empty());
}

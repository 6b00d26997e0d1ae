// SPDX-License-Identifier: Apache-2.0
// labels: unit
// forms: header-only
#define BOOST_TEST_MODULE limber.optimizer.optimizer
#include <limber/batch/policies.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <support/allocations.hpp>
#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <limits>
#include <set>
#include <stdexcept>

using namespace limber;
using namespace limber::testing;
using test::says;

BOOST_AUTO_TEST_CASE(bad_input_is_named_with_argument_and_value) {
  toy_model<float> m;
  self comm;
  auto make = [&](std::vector<tensor> const& p, auto const& rule, auto const& rate, options o = {}) {
    optimizer opt{p, rule, rate, sync::allreduce{}, comm, o};
  };
  auto const p = m.parameters();
  using invalid = std::invalid_argument;
  BOOST_CHECK_EXCEPTION(make({}, sgd{}, 0.1), invalid, says("list of parameters is empty"));
  BOOST_CHECK_EXCEPTION(make({p[0], p[0]}, sgd{}, 0.1), invalid, says("two parameters are named 'w'"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{.momentum = 1.0}, 0.1), invalid, says("sgd", "momentum", "1"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, -0.1), invalid, says("-0.1"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, [](progress const&) { return -0.5; }), invalid,
                        says("schedule", "-0.5", "step 0"));
  BOOST_CHECK_EXCEPTION(
      make(p, sgd{}, [](progress const&) { return std::numeric_limits<double>::quiet_NaN(); }), invalid,
      says("schedule", "nan"));
  std::vector<float> shorter(3);
  BOOST_CHECK_EXCEPTION(make({{"w", m.w, shorter}}, sgd{}, 0.1), invalid,
                        says("'w'", "20 values", "3 gradients"));
  std::vector<double> wide(20);
  BOOST_CHECK_EXCEPTION(make({{"w", m.w, wide}}, sgd{}, 0.1), invalid, says("'w'", "f32", "f64"));
  std::vector<i64> integers(20);
  BOOST_CHECK_EXCEPTION(make({{"w", integers, m.gw}}, sgd{}, 0.1), invalid, says("'w'", "int64"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.epoch_size = -1}), invalid, says("epoch_size", "-1"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.batch = fixed{0}}), invalid, says("fixed", "0"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.batch = per_worker{-2}}), invalid, says("per_worker", "-2"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.max_skipped = -1}), invalid, says("max_skipped", "-1"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.ramp = {.steps_per_growth = -8}}), invalid,
                        says("steps_per_growth", "-8"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.buckets = {.bytes = 0}}), invalid, says("bytes", "0"));
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.batch = nullptr}), invalid, says("batch", "no policy"));
  BOOST_CHECK_EXCEPTION(make({{"w", m.w, m.gw}, {"tied", m.w, m.gb}}, sgd{}, 0.1), invalid,
                        says("20 values", "1 gradients"));
  std::vector<float> other(20);
  BOOST_CHECK_EXCEPTION(make({{"w", m.w, m.gw}, {"tied", m.w, other}}, sgd{}, 0.1), invalid,
                        says("'tied'", "'w'", "share memory"));
  auto const several = [](batch_facts const&) {
    return batch_plan{.total = 8, .share = {8}, .calls_per_update = 4};
  };
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.batch = several}), invalid, says("calls_per_update", "4"));
  auto const wrong_sum = [](batch_facts const&) { return batch_plan{.total = 8, .share = {7}}; };
  BOOST_CHECK_EXCEPTION(make(p, sgd{}, 0.1, {.batch = wrong_sum}), invalid,
                        says("shares of 7", "batch of 8"));
  BOOST_CHECK_EXCEPTION((optimizer{p, sgd{}, 0.1, sync::allreduce{0}, comm}), invalid,
                        says("every", "period", "0"));
  BOOST_CHECK_EXCEPTION((optimizer{p, sgd{}, 0.1, sync::local{-3}, comm}), invalid,
                        says("every", "period", "-3"));
  options shards;
  shards.batch = logical_shards{4, 2};
  BOOST_CHECK_EXCEPTION((optimizer{p, sgd{}, 0.1, sync::allreduce{2}, comm, shards}), invalid,
                        says("period must be 1", "2"));
  BOOST_CHECK_EXCEPTION((optimizer{p, sgd{}, 0.1, sync::local{2}, comm, shards}), invalid,
                        says("gradients cross all"));
  std::vector<tensor> const same{{"w", wide}};
  BOOST_CHECK_EXCEPTION(
      (optimizer{groups(parameter_group{p, sgd{}}, buffers{same}), 0.1, sync::allreduce{}, comm}), invalid,
      says("'w' is a parameter and a buffer"));
}

BOOST_AUTO_TEST_CASE(misuse_of_the_loop_is_named) {
  toy_model<float> m;
  self comm;
  optimizer opt{m.parameters(), sgd{}, 0.1, sync::allreduce{}, comm};
  BOOST_CHECK_EXCEPTION(opt.step(-4), std::invalid_argument, says("step", "-4"));
  BOOST_CHECK_EXCEPTION(opt.step(), std::invalid_argument, says("step(n)", "begin(n)"));
  BOOST_CHECK_EXCEPTION(opt.begin(-1), std::invalid_argument, says("begin", "-1"));
  opt.begin(5);
  BOOST_CHECK_EXCEPTION(opt.begin(6), std::invalid_argument, says("twice", "5"));
  BOOST_CHECK_EXCEPTION(opt.step(6), std::invalid_argument, says("begin(5)"));
  m.backward(run_of(0, 5));
  BOOST_TEST(opt.step().samples == 5);
  BOOST_CHECK_EXCEPTION(opt.freeze("nothing"), std::invalid_argument, says("nothing"));
  BOOST_CHECK_EXCEPTION((void)opt.explain(epochs(0)), std::invalid_argument, says("horizon", "0"));
}

BOOST_AUTO_TEST_CASE(the_report_is_of_the_last_call_also_after_finish) {
  toy_model<float> m;
  self comm;
  optimizer opt{m.parameters(), sgd{}, 0.1, sync::local{.period = 4}, comm};
  m.backward(run_of(0, 5));
  opt.step(5);
  opt.finish();
  BOOST_TEST(opt.last().applied);
  opt.begin(3);
  BOOST_CHECK_EXCEPTION(opt.finish(), std::invalid_argument, says("finish", "begin(3)"));
}

BOOST_AUTO_TEST_CASE(an_optimizer_may_be_moved_between_steps) {
  toy_model<float> a, b;
  self comm;
  auto make = [&](toy_model<float>& m) {
    return optimizer{m.parameters(), ema{adamw{}, 0.9}, 0.1, sync::local{.period = 3}, comm};
  };
  auto stays = make(a);
  auto first = make(b);
  a.backward(run_of(0, 3));
  b.backward(run_of(0, 3));
  stays.step(3);
  first.step(3);
  auto second = std::move(first);
  for (int t = 1; t < 7; ++t) {
    a.backward(run_of(t, 3));
    b.backward(run_of(t, 3));
    stays.step(3);
    second.step(3);
  }
  BOOST_TEST(same_bits(a.all(), b.all()));
  BOOST_TEST(second.explain() == stays.explain());
}

BOOST_AUTO_TEST_CASE(begin_and_step_is_step_with_a_number) {
  toy_model<float> a, b;
  self comm;
  optimizer one{a.parameters(), sgd{.momentum = 0.9}, 0.1, sync::allreduce{}, comm};
  optimizer two{b.parameters(), sgd{.momentum = 0.9}, 0.1, sync::allreduce{}, comm};
  for (int t = 0; t < 5; ++t) {
    a.backward(run_of(t, 3));
    b.backward(run_of(t, 3));
    one.step(3);
    two.begin(3);
    two.step();
  }
  BOOST_TEST(same_bits(a.all(), b.all()));
}

// Values may be loaded after construction: masters are seeded by the first step.
BOOST_AUTO_TEST_CASE(constructors_read_no_values) {
  toy_model<float> a, b;
  self comm;
  optimizer one{a.parameters(), ema{master{sgd{}}, 0.9}, 0.1, sync::allreduce{}, comm};
  a.w[0] = b.w[0] = 5;
  optimizer two{b.parameters(), ema{master{sgd{}}, 0.9}, 0.1, sync::allreduce{}, comm};
  a.backward(run_of(0, 4));
  b.backward(run_of(0, 4));
  one.step(4);
  two.step(4);
  BOOST_TEST(same_bits(a.all(), b.all()));
}

BOOST_AUTO_TEST_CASE(the_order_of_registration_changes_the_buckets_and_no_bit) {
  toy_model<float> a, b;
  self comm;
  auto p = a.parameters(), q = b.parameters();
  std::swap(q[0], q[1]);
  optimizer one{p, clipped{sgd{.momentum = 0.9}, 0.1}, 0.1, sync::allreduce{}, comm};
  optimizer two{q, clipped{sgd{.momentum = 0.9}, 0.1}, 0.1, sync::allreduce{}, comm};
  for (int t = 0; t < 5; ++t) {
    a.backward(run_of(t, 3));
    b.backward(run_of(t, 3));
    one.step(3);
    two.step(3);
  }
  BOOST_TEST(same_bits(a.all(), b.all()));
  threads::run(2, [](threads::communicator& others) {
    for (bool const swapped : {false, true}) {
      toy_model<float> m;
      auto order = m.parameters();
      if (swapped) std::swap(order[0], order[1]);
      std::string const said =
          optimizer{order, sgd{}, 0.1, sync::allreduce{}, others, {.batch = per_worker{3}}}.explain();
      if (!has(said, swapped ? "bucket 0: w … b" : "bucket 0: b … w")) throw std::logic_error(said);
    }
  });
}

BOOST_AUTO_TEST_CASE(groups_have_their_own_rule_and_rate) {
  toy_model<double> m;
  self comm;
  auto const p = m.parameters();
  optimizer opt{groups(parameter_group{std::vector{p[0]}, sgd{.weight_decay = 0.1}},
                       parameter_group{std::vector{p[1]}, sgd{}, 2.0}),
                0.01, sync::allreduce{}, comm};
  m.backward(run_of(0, 4));
  auto const before = m;
  opt.step(4);
  BOOST_TEST(m.b[0] == before.b[0] - 0.02 * before.gb[0], boost::test_tools::tolerance(1e-14));
  BOOST_TEST(m.w[3] == before.w[3] - 0.01 * (before.gw[3] + 0.1 * before.w[3]),
             boost::test_tools::tolerance(1e-14));
}

BOOST_AUTO_TEST_CASE(a_lambda_a_number_and_a_schedule_are_rates) {
  self comm;
  auto end = [&](auto const& rate) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{}, rate, sync::allreduce{}, comm};
    for (int t = 0; t < 3; ++t) {
      m.backward(run_of(t, 3));
      opt.step(3);
    }
    return m.all();
  };
  auto const a = end(0.05), b = end([](progress const&) { return 0.05; }), c = end(constant(0.05));
  BOOST_TEST((same_bits(a, b) && same_bits(a, c)));
}

BOOST_AUTO_TEST_CASE(a_schedule_that_turns_negative_stops_before_anything_changes) {
  toy_model<float> m;
  self comm;
  optimizer opt{m.parameters(), sgd{}, [](progress const& p) { return p.steps < 2 ? 0.1 : -0.1; },
                sync::allreduce{}, comm};
  for (int t = 0; t < 2; ++t) {
    m.backward(run_of(t, 3));
    opt.step(3);
  }
  m.backward(run_of(2, 3));
  auto const before = m.all();
  BOOST_CHECK_EXCEPTION(opt.step(3), std::invalid_argument, says("-0.1", "step 2"));
  BOOST_TEST(same_bits(m.all(), before));
  BOOST_TEST(opt.now().calls == 2);
}

BOOST_AUTO_TEST_CASE(time_comes_from_the_clock_that_was_given) {
  toy_model<float> m;
  self comm;
  double now = 100;
  optimizer opt{m.parameters(), sgd{}, 0.1, sync::allreduce{}, comm, {.clock = [&] { return now += 0.5; }}};
  now = 107;
  BOOST_TEST(opt.step(1).host_seconds == 7.0);  // 100.5 at construction, 107.5 at the call
  BOOST_TEST(opt.last().exchange_seconds == 0.5);
}

BOOST_AUTO_TEST_CASE(a_step_allocates_nothing) {
  auto count = [](auto const& rule, auto strategy, options o) {
    toy_model<float> m;
    self comm;
    optimizer opt{m.parameters(), rule, linear_scaling{.base_lr = 0.1, .base_batch = 8} * cosine(1000_steps),
                  strategy,       comm, o};
    for (int t = 0; t < 6; ++t) opt.step(4);
    long const before = allocations;
    for (int t = 0; t < 12; ++t) opt.step(4);
    return allocations - before;
  };
  options wire;
  wire.buckets.wire = dtype::bf16;
  BOOST_TEST(count(sgd{.momentum = 0.9}, sync::allreduce{}, {}) == 0);
  BOOST_TEST(count(clipped{master{adamw{}, true, 1}, 1.0}, sync::allreduce{.period = 2}, wire) == 0);
  BOOST_TEST(count(lamb{}, sync::allreduce{}, {}) == 0);
  BOOST_TEST(count(ema{lars{}, 0.9}, sync::local{.period = 3}, {}) == 0);
}

BOOST_AUTO_TEST_CASE(every_piece_of_state_has_a_name_of_its_own) {
  toy_model<float> m;
  self comm;
  optimizer opt{m.parameters(), ema{adamw{}, 0.9}, 0.1, sync::local{.period = 5}, comm};
  m.backward(run_of(0, 3));
  opt.step(3);
  std::set<std::string> names;
  i64 pieces = 0, apart = 0;
  opt.visit([&](state_piece const& p) {
    ++pieces;
    names.insert(p.name);
    apart += p.how == kept::per_rank ? 1 : 0;
  });
  BOOST_TEST(static_cast<i64>(names.size()) == pieces);
  for (auto const* name :
       {"progress", "parameter/w", "rule0/slot0/w", "rule0/slot1/b", "rule0/seen", "sync/merge0/anchor/w"})
    BOOST_TEST(names.contains(name), name);
  BOOST_TEST(apart > 0);  // inside a round every worker has its own model
}

BOOST_AUTO_TEST_CASE(explain_says_what_will_happen) {
  toy_model<float> m;
  self comm;
  optimizer opt{m.parameters(),
                sgd{.momentum = 0.9},
                linear_scaling{.base_lr = 0.1, .base_batch = 32} * cosine(10_epochs),
                sync::local{.period = 16},
                comm,
                {.batch = per_worker{32}, .epoch_size = 320}};
  auto const said = opt.explain(10_epochs);
  for (auto const* part : {"rank 0 of 1, 2 tensors, 21 parameters", "32 samples an update, 32 of them here",
                           "models every 16 calls: 1 buckets, 96 B", "step 0, epoch 0: 0.1",
                           "step 50, epoch 5: 0.05", "step 100, epoch 10: 0\n"})
    BOOST_TEST(said.find(part) != std::string::npos, "no '" << part << "' in\n" << said);
}

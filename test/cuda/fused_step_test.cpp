// SPDX-License-Identifier: Apache-2.0
// labels: kernel property
// timeout: 300
// sanitizers: no
#define BOOST_TEST_MODULE limber.cuda.fused_step
#include <limber/comm/threads.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/cuda/fused_step.hpp>
#include <limber/limber.hpp>

#include <cuda/late_host.hpp>

#include <boost/test/unit_test.hpp>

#include <support/all_rules.hpp>
#include <support/checks.hpp>

#include <array>
#include <cstring>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;

namespace {

// A model of two tensors, one of which is not a multiple of anything, in storage type S.
template <class S>
struct model {
  std::vector<S> w = std::vector<S>(4100), b = std::vector<S>(37);
  std::vector<float> gw = std::vector<float>(4100), gb = std::vector<float>(37);

  explicit model(unsigned seed = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (auto* v : {&w, &b})
      for (S& x : *v) x = S(normal(random));
  }
  [[nodiscard]] std::vector<tensor> parameters() { return {{"w", w, gw}, {"b", b, gb}}; }
  [[nodiscard]] bool operator==(model const& o) const {
    return std::memcmp(w.data(), o.w.data(), w.size() * sizeof(S)) == 0 &&
           std::memcmp(b.data(), o.b.data(), b.size() * sizeof(S)) == 0;
  }
  void backward(unsigned seed, double spread = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, static_cast<float>(spread));
    for (auto* v : {&gw, &gb})
      for (float& x : *v) x += normal(random);
  }
  [[nodiscard]] bool gradients_are_zero() const {
    for (auto const* v : {&gw, &gb})
      for (float x : *v)
        if (x != 0) return false;
    return true;
  }
};

auto const rate = linear_scaling{.base_lr = 0.01, .base_batch = 32} * (warmup(10_steps) | cosine(60_steps));

// Plans whatever batch it is told.
struct told {
  i64 const* batch;
  batch_plan operator()(batch_facts const& f) const {
    batch_plan p;
    p.total = *batch;
    p.share.assign(static_cast<std::size_t>(f.world), *batch / f.world);
    return p;
  }
};

constexpr float inf = std::numeric_limits<float>::infinity();

}  // namespace

// The optimizer's own tests say what is right; here the host only enqueues, and the bits are the same:
// with a ramp up and down, without samples, with gradients that are not finite first, later, twice.
BOOST_AUTO_TEST_CASE(every_kind_of_rule_takes_the_same_steps_as_the_optimizer) {
  auto const same_steps = [](auto const& rule, auto storage) {
    using S = decltype(storage);
    model<S> expected, m;
    i64 planned = 32;
    self comm;
    optimizer opt{expected.parameters(), rule, rate,
                  sync::allreduce{},     comm, {.batch = told{&planned}, .epoch_size = 1000}};
    late_host exec;
    gpu::fused_step step{exec, m.parameters(), rule, rate, {.epoch_size = 1000}};
    for (unsigned i = 0; i < 40; ++i) {
      if (i == 12 || i == 33) {
        planned = i == 12 ? 128 : 16;
        opt.resize(comm);
      }
      expected.backward(i);
      m.backward(i);
      if (i == 0 || i == 7 || i == 8) expected.gb[5] = m.gb[5] = inf;
      i64 const n = i == 20 ? 0 : planned;
      opt.step(n);
      step.advance(n, static_cast<double>(planned));
      step.update();
      BOOST_TEST_REQUIRE((m == expected), name_of_rule(rule) << " in step " << i);
      BOOST_TEST_REQUIRE(m.gradients_are_zero(), name_of_rule(rule));
    }
    auto const& s = step.settle();
    BOOST_TEST(s.now.steps == opt.now().steps);
    BOOST_TEST(s.now.samples == opt.now().samples);
    BOOST_TEST(s.now.calls == opt.now().calls);
    BOOST_TEST(std::memcmp(&s.now.batch, &opt.now().batch, sizeof(ramp)) == 0);
    BOOST_TEST(s.now.steps == 36);
  };
  // One of each kind: no slots, moments, norms, two passes, weights, and wrappers around them.
  std::apply([&](auto const&... rule) { (same_steps(rule, float{}), ...); },
             std::tuple{descent{}, sgd{.momentum = 0.9, .weight_decay = 0.01, .nesterov = true},
                        sgd{.momentum = 0.9, .form = momentum_form::inside}, adamw{}, clipped{lars{}, 0.5},
                        clipped{lamb{}, 0.5}, ema{master{adagrad{}}, 0.5}});
  same_steps(master{adamw{}, true, 7}, bf16{});
  same_steps(master{sgd{.momentum = 0.9}}, f16{});
  same_steps(clipped{master{lamb{}}, 1.0}, bf16{});
}

BOOST_AUTO_TEST_CASE(groups_of_different_rules_share_one_norm_and_one_skip) {
  model<float> expected, m;
  i64 planned = 8;
  self comm;
  auto const split = [](model<float>& x, auto const& f) {
    return f(parameter_group{std::vector<tensor>{{"w", x.w, x.gw}}, clipped{lars{.weight_decay = 0.01}, 0.5}},
             parameter_group{std::vector<tensor>{{"b", x.b, x.gb}}, adamw{}, 2.0});
  };
  auto opt = split(expected, [&](auto const& a, auto const& b) {
    return optimizer{groups(a, b), 0.1, sync::allreduce{}, comm, options{.batch = told{&planned}}};
  });
  late_host exec;
  auto step = split(m, [&](auto const& a, auto const& b) {
    return gpu::fused_step{exec, constant(0.1), gpu::fused_options{}, a, b};
  });
  for (unsigned i = 0; i < 10; ++i) {
    expected.backward(i, 3);
    m.backward(i, 3);
    if (i == 4) expected.gw[4099] = m.gw[4099] = -inf;
    opt.step(8);
    step.advance(8, 8);
    step.update();
    BOOST_TEST_REQUIRE((m == expected), "step " << i);
  }
  BOOST_TEST(step.settle().now.steps == 9);
}

BOOST_AUTO_TEST_CASE(sums_are_divided_by_their_samples) {
  model<float> expected, m;
  i64 planned = 24;
  self comm;
  optimizer opt{expected.parameters(),
                sgd{.momentum = 0.9},
                0.05,
                sync::local{.period = 1000},
                comm,
                {.batch = told{&planned}, .gradient = gradient_is::sum}};
  late_host exec;
  gpu::fused_step step{exec, m.parameters(), sgd{.momentum = 0.9}, 0.05, {.gradient = gradient_is::sum}};
  for (unsigned i = 0; i < 5; ++i) {
    expected.backward(i, 20);
    m.backward(i, 20);
    opt.step(20 + i);
    step.advance(20 + i, 24);
    step.update();
    BOOST_TEST_REQUIRE((m == expected), "step " << i);
  }
}

// Three workers with uneven, changing and missing shares; what crosses is what the strategy would send.
BOOST_AUTO_TEST_CASE(several_ranks_take_the_same_steps_as_all_reduce) {
  for (auto const wire : {std::optional<dtype>{}, std::optional{dtype::bf16}}) {
    threads::run(3, [&](threads::communicator& comm) {
      auto const r = static_cast<std::size_t>(comm.rank());
      model<float> expected, m;
      i64 planned = 60;
      options o{.batch = told{&planned}, .epoch_size = 500};
      o.buckets = {.first_bytes = 4096, .bytes = 10'000, .wire = wire};
      optimizer opt{expected.parameters(), clipped{adamw{}, 1.0}, rate, sync::allreduce{}, comm, o};
      late_host exec;
      gpu::fused_step step{exec,
                           m.parameters(),
                           clipped{adamw{}, 1.0},
                           rate,
                           {.epoch_size = 500, .ranks = 3, .buckets = o.buckets}};
      auto const reduce = [&](auto& s) {
        for (auto const& b : s.buckets().buckets)
          comm.all_reduce(bucket_view(s.packed(), b), bucket_view(s.reduced(), b)).wait();
        comm.all_reduce(s.control(), s.total()).wait();
      };
      for (unsigned i = 0; i < 12; ++i) {
        if (i == 6) {
          planned = 120;
          opt.resize(comm);
        }
        std::array<i64, 3> const share{i == 3 ? 0 : 10, i == 3 || i == 4 ? 0 : 20, i == 3 ? 0 : 30 + i};
        expected.backward(7 * i + static_cast<unsigned>(r));
        m.backward(7 * i + static_cast<unsigned>(r));
        if (i == 9 && r == 1) expected.gw[7] = m.gw[7] = inf;
        opt.step(share[r]);
        step.advance(share[r], static_cast<double>(planned));
        step.update(reduce);
        LIMBER_CHECK(m == expected);
        LIMBER_CHECK(m.gradients_are_zero());
      }
      auto const& s = step.settle();
      LIMBER_CHECK(s.now.steps == 10);
      LIMBER_CHECK(s.now.samples == opt.now().samples);
      LIMBER_CHECK(s.now.noise.count == opt.now().noise.count);
      LIMBER_CHECK(std::abs(s.now.noise.variance / opt.now().noise.variance - 1) < 1e-5);
      LIMBER_CHECK(std::abs(s.now.noise.square / opt.now().noise.square - 1) < 1e-5);
    });
  }
}

BOOST_AUTO_TEST_CASE(news_arrives_late_and_names_the_tensor) {
  model<float> m;
  late_host exec;
  exec.lag = 2;
  gpu::fused_step step{exec, m.parameters(), sgd{}, 0.1, {.max_skipped = 3}};
  std::string said;
  int calls = 0;
  while (said.empty() && calls < 50) {
    m.backward(1);
    if (++calls > 5) m.gb[3] = inf;
    said = message_of([&] {
      step.advance(4, 4);
      step.update();
    });
  }
  BOOST_TEST(has(said, "[b]"), said);
  BOOST_TEST(has(said, "4 updates in a row"), said);
  BOOST_TEST(calls > 9);
  BOOST_TEST(calls < 20);
}

BOOST_AUTO_TEST_CASE(after_the_first_advance_the_host_sends_nothing) {
  model<float> m;
  late_host exec;
  gpu::fused_step step{exec, m.parameters(), adamw{}, rate, {}};
  step.advance(4, 4);
  int const sent = exec.published;
  for (int i = 0; i < 5; ++i) {
    step.update();
    step.advance(4, 4 + i);
  }
  BOOST_TEST(exec.published == sent);
}

BOOST_AUTO_TEST_CASE(a_run_goes_on_from_its_progress) {
  model<float> m, n;
  late_host exec;
  progress middle;
  {
    gpu::fused_step step{exec, m.parameters(), sgd{}, rate, {.epoch_size = 100}};
    for (unsigned i = 0; i < 8; ++i) {
      m.backward(i);
      step.advance(32, 64);
      step.update();
      if (i == 4) {
        middle = step.settle().now;
        n = m;
      }
    }
  }
  gpu::fused_step step{exec, n.parameters(), sgd{}, rate, {.epoch_size = 100}};
  step.resume(middle);
  for (unsigned i = 5; i < 8; ++i) {
    n.backward(i);
    step.advance(32, 64);
    step.update();
  }
  BOOST_TEST((m == n));
  BOOST_TEST(step.settle().now.samples == 8 * 32);
  BOOST_TEST(step.poll().now.calls == 8);
}

BOOST_AUTO_TEST_CASE(gradients_may_move) {
  model<float> expected, m;
  late_host exec;
  gpu::fused_step a{exec, expected.parameters(), sgd{.momentum = 0.9}, 0.1};
  gpu::fused_step b{exec, m.parameters(), sgd{.momentum = 0.9}, 0.1};
  for (unsigned i = 0; i < 4; ++i) {
    std::vector<float> gw(4100), gb(37);
    b.move_gradients({view(gw), view(gb)});
    expected.backward(i);
    gw = expected.gw;
    gb = expected.gb;
    a.advance(1, 1);
    a.update();
    b.advance(1, 1);
    b.update();
    BOOST_TEST_REQUIRE((m == expected));
    BOOST_TEST(gw[0] == 0);
  }
  std::vector<float> gw(4100), gb(36);
  std::vector<bf16> half(37);
  BOOST_TEST(has(message_of([&] { b.move_gradients({view(gw), view(gb)}); }), "'b'", "37", "36"));
  BOOST_TEST(has(message_of([&] { b.move_gradients({view(gw), view(half)}); }), "'b'", "f32", "bf16"));
  BOOST_TEST(has(message_of([&] { b.move_gradients({view(gw)}); }), "1 gradients for 2"));
  BOOST_TEST(has(message_of([&] {
                   b.move_gradients({view(gw), {nullptr, 37, dtype::f32, {}}});
                 }),
                 "'b'", "null"));
}

BOOST_AUTO_TEST_CASE(bad_input_is_refused_by_name) {
  model<float> m;
  late_host exec;
  auto const make = [&](gpu::fused_options o) { gpu::fused_step{exec, m.parameters(), sgd{}, 0.1, o}; };
  BOOST_TEST(has(message_of([&] { make({.epoch_size = -1}); }), "epoch_size", "-1"));
  BOOST_TEST(has(message_of([&] {
                   gpu::fused_step{exec, m.parameters(), sgd{}, 0.1 * cosine(5_epochs)};
                 }),
                 "counts epochs", "epoch_size"));
  BOOST_TEST(has(message_of([&] { make({.ranks = 0}); }), "ranks", "0"));
  BOOST_TEST(has(message_of([&] { make({.max_skipped = -1}); }), "max_skipped", "-1"));
  BOOST_TEST(has(message_of([&] { gpu::fused_step{exec, std::vector<tensor>{}, sgd{}, 0.1}; }), "empty"));
  BOOST_TEST(has(message_of([&] {
                   gpu::fused_step{exec, m.parameters(), sgd{.momentum = 2}, 0.1};
                 }),
                 "momentum", "2"));
  gpu::fused_step step{exec, m.parameters(), sgd{}, 0.1};
  BOOST_TEST(has(message_of([&] { step.advance(-1, 4); }), "-1"));
  BOOST_TEST(has(message_of([&] { step.advance(1, 0); }), "planned", "0"));
  BOOST_TEST(has(message_of([&] { step.pack(); }), "several ranks"));
  gpu::fused_step two{exec, m.parameters(), sgd{}, 0.1, {.ranks = 2}};
  BOOST_TEST(has(message_of([&] { two.update(); }), "update(reduce)"));
}

// What a graph would hold: after one update nothing is allocated or sent, and what a captured call reads is
// left alone by lists that come later, wherever they lie.
BOOST_AUTO_TEST_CASE(a_capture_needs_one_update_before_and_keeps_its_tables) {
  model<float> expected, m;
  late_host plain;
  gpu::fused_step a{plain, expected.parameters(), clipped{adamw{}, 1.0}, rate};
  gpu::basic_executor<gpu::emulator> exec;
  gpu::fused_step b{exec, m.parameters(), clipped{adamw{}, 1.0}, rate};
  BOOST_TEST(has(message_of([&] { b.update(); }), "advance"));
  for (unsigned i = 0; i < 6; ++i) {
    expected.backward(i);
    m.backward(i);
    a.advance(32, 64);
    a.update();
    b.advance(32, 64);
    exec.device().capture(i > 0);
    b.update();
    exec.device().capture(false);
    BOOST_TEST_REQUIRE((m == expected), "step " << i);
  }
  std::vector<float> one(9, 1), other(9, 1);
  tensor_list list{view(one, "one")};
  exec.device().capture(true);
  BOOST_TEST(has(message_of([&] { exec.each(zero{}, out(list)); }), "captured", "once before"));
  exec.device().capture(false);
  exec.each(zero{}, out(list));
  exec.device().capture(true);
  exec.each(zero{}, out(list));
  exec.device().capture(false);
  auto const made = exec.device().seen().allocations;
  list[0] = view(other, "other");
  exec.each(zero{}, out(list));
  BOOST_TEST(other[0] == 0);
  BOOST_TEST(exec.device().seen().allocations > made);  // a table of its own: the captured one stays
  auto const mine = exec.device().seen().allocations;
  list[0] = view(one, "one");
  one[3] = 7;
  exec.each(zero{}, out(list));
  BOOST_TEST(one[3] == 0);
  BOOST_TEST(exec.device().seen().allocations == mine);
}

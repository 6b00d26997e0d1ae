// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
// forms: header-only
// timeout: 240
#define BOOST_TEST_MODULE limber.fuse.updater
#include <limber/fuse/host.hpp>
#include <limber/fuse/updater.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <support/all_rules.hpp>

#include <cstring>
#include <limits>
#include <random>

using namespace limber;
using test::says;

namespace {

// Three tensors of one type, one of them empty.
template <class S>
struct model {
  std::vector<S> a, b, c;
  std::vector<float> ga, gb, gc;
  explicit model(unsigned seed) : a(5000), b(0), c(37), ga(5000), gb(0), gc(37) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (auto* v : {&a, &c})
      for (auto& x : *v) x = S(normal(random));
  }
  tensor_list values() { return {view(a, "a"), view(b, "b"), view(c, "c")}; }
  tensor_list gradients() { return {view(ga, "a"), view(gb, "b"), view(gc, "c")}; }
  void backward(int step) {
    std::mt19937 random(static_cast<unsigned>(step) + 100u);
    std::normal_distribution<float> normal;
    for (auto* v : {&ga, &gc})
      for (auto& x : *v) x = normal(random);
  }
};

template <class R, class S>
updater make_updater(model<S>& m, R const& rule, any_executor& h) {
  updater u(m.values());
  for (i64 i = 0; i < 3; ++i) u.assign(i, rule);
  u.allocate(h);
  return u;
}

// Everything an update may touch, as bytes.
template <class S>
std::vector<std::byte> snapshot(model<S>& m, updater& u) {
  std::vector<std::byte> out;
  auto add = [&](tensor_view v) { out.insert(out.end(), v.data, v.data + v.bytes()); };
  for (auto const& v : m.values()) add(v);
  u.visit("", [&](std::string const&, tensor_view v, bool) { add(v); });
  return out;
}

double total_of(model<float> const& m) {
  return std::hypot(testing::plain_norm(m.ga), testing::plain_norm(m.gc));
}

}  // namespace

// Against the serial driver, which knows nothing of lists, leaves or passes.
BOOST_AUTO_TEST_CASE(every_rule_gives_the_trajectory_of_a_plain_loop) {
  testing::for_each_rule([](auto const& rule) {
    using R = std::decay_t<decltype(rule)>;
    BOOST_TEST_CONTEXT(testing::name_of_rule(rule)) {
      model<float> m(1);
      any_executor h(host{});
      auto u = make_updater(m, rule, h);
      testing::drive<R, float> a(rule, m.a), c(rule, m.c);
      for (int t = 0; t < 12; ++t) {
        double const rate = 0.01 * (1 + t % 3);
        m.backward(t);
        double const total = total_of(m);
        a.step(m.ga, rate, total);
        c.step(m.gc, rate, total);
        BOOST_TEST(u.step(h, m.gradients(), rate, 1.0, true).applied);
      }
      double worst = 0, bits = 0;
      for (std::size_t k = 0; k < m.a.size(); ++k) {
        worst = std::max(worst, std::abs(static_cast<double>(m.a[k]) - static_cast<double>(a.p()[k])));
        bits += m.a[k] != a.p()[k] ? 1 : 0;
      }
      for (std::size_t k = 0; k < m.c.size(); ++k) bits += m.c[k] != c.p()[k] ? 1 : 0;
      if constexpr (uses_norms<R> || two_pass<R>)
        BOOST_TEST(worst < 2e-5);  // norms differ in the last bits; trust ratios carry that on
      else
        BOOST_TEST(bits == 0);
    }
  });
}

BOOST_AUTO_TEST_CASE(sixteen_bit_parameters_follow_the_driver_bit_for_bit) {
  auto compare = [](auto const& rule) {
    using R = std::decay_t<decltype(rule)>;
    model<bf16> m(2);
    any_executor h(host{});
    auto u = make_updater(m, rule, h);
    testing::drive<R, float, bf16> c(rule, m.c);
    for (int t = 0; t < 20; ++t) {
      m.backward(t);
      c.step(m.gc, 0.01);
      u.step(h, m.gradients(), 0.01, 1.0, true);
    }
    for (std::size_t k = 0; k < m.c.size(); ++k) BOOST_REQUIRE(m.c[k].bits == c.p()[k].bits);
  };
  compare(sgd{.momentum = 0.9});
  compare(adamw{});
  compare(master{adamw{}});
}

BOOST_AUTO_TEST_CASE(a_gradient_that_is_not_finite_changes_nothing_and_is_named) {
  testing::for_each_rule([](auto const& rule) {
    BOOST_TEST_CONTEXT(testing::name_of_rule(rule)) {
      for (int bad_step : {0, 3})
        for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
          model<float> m(3);
          any_executor h(host{});
          auto u = make_updater(m, rule, h);
          u.seed(h);
          for (int t = 0; t < 5; ++t) {
            m.backward(t);
            auto const before = snapshot(m, u);
            if (t == bad_step) m.gc[17] = bad;
            step_result const v = u.step(h, m.gradients(), 0.01, 1.0, true);
            BOOST_TEST(v.applied == (t != bad_step));
            BOOST_TEST(v.culprit == (t == bad_step ? 2 : -1));
            BOOST_TEST((snapshot(m, u) == before) == (t == bad_step));
            BOOST_TEST(std::ranges::all_of(m.ga, [](float x) { return x == 0; }));
            BOOST_TEST(std::ranges::all_of(m.gc, [](float x) { return x == 0; }));
          }
        }
    }
  });
}

// A skipped first step must not leave momentum uninitialised: the trajectory after it is that of a
// fresh start.
BOOST_AUTO_TEST_CASE(a_skipped_first_step_leaves_a_fresh_start) {
  model<float> m(4), n(4);
  any_executor h(host{});
  auto u = make_updater(m, sgd{.momentum = 0.9, .dampening = 0.5}, h);
  auto w = make_updater(n, sgd{.momentum = 0.9, .dampening = 0.5}, h);
  m.backward(0);
  m.ga[0] = std::numeric_limits<float>::infinity();
  u.step(h, m.gradients(), 0.1, 1.0, true);
  for (int t = 1; t < 4; ++t) {
    m.backward(t);
    n.backward(t);
    u.step(h, m.gradients(), 0.1, 1.0, true);
    w.step(h, n.gradients(), 0.1, 1.0, true);
  }
  BOOST_TEST((m.a == n.a && m.c == n.c));
}

BOOST_AUTO_TEST_CASE(rules_of_different_types_share_one_norm_and_one_skip) {
  model<float> m(5), n(5);
  any_executor h(host{});
  updater u(m.values());
  u.assign(0, clipped{sgd{.momentum = 0.9}, 0.5});
  u.assign(1, adamw{});
  u.assign(2, adamw{});
  u.allocate(h);
  testing::drive<clipped<sgd>, float> a(clipped{sgd{.momentum = 0.9}, 0.5}, m.a);
  testing::drive<adamw, float> c(adamw{}, m.c);
  for (int t = 0; t < 6; ++t) {
    m.backward(t);
    double const total = total_of(m);
    a.step(m.ga, 0.1, total);
    c.step(m.gc, 0.1, total);
    u.step(h, m.gradients(), 0.1, 1.0, true);
  }
  double worst = 0;
  for (std::size_t k = 0; k < m.a.size(); ++k) worst = std::max<double>(worst, std::abs(m.a[k] - a.p()[k]));
  BOOST_TEST(worst < 1e-6);
  BOOST_TEST(m.c == c.p());
  m.backward(9);
  m.gc[0] = std::numeric_limits<float>::quiet_NaN();
  auto const before = m.a;
  BOOST_TEST(!u.step(h, m.gradients(), 0.1, 1.0, true).applied);
  BOOST_TEST(m.a == before);
}

// State is per buffer: a tensor that joins late starts its own bias correction and dampening.
BOOST_AUTO_TEST_CASE(a_tensor_that_was_frozen_starts_when_it_is_released) {
  auto compare = [](auto const& rule) {
    using R = std::decay_t<decltype(rule)>;
    model<float> m(6);
    any_executor h(host{});
    auto u = make_updater(m, rule, h);
    testing::drive<R, float> a(rule, m.a), c(rule, m.c);
    auto const start = m.c;
    u.freeze(2, true);
    for (int t = 0; t < 12; ++t) {
      if (t == 5) u.freeze(2, false);
      if (t == 8) u.freeze(0, true);
      m.backward(t);
      if (t < 8) a.step(m.ga, 0.05);
      if (t >= 5) c.step(m.gc, 0.05);
      if (t < 5) m.gc[0] = std::numeric_limits<float>::quiet_NaN();  // of no concern while frozen
      BOOST_TEST(u.step(h, m.gradients(), 0.05, 1.0, true).applied);
      if (t == 4) BOOST_TEST(m.c == start);
      BOOST_TEST(std::ranges::all_of(m.gc, [](float x) { return x == 0; }));
    }
    BOOST_TEST(m.a == a.p());
    BOOST_TEST(m.c == c.p());
  };
  compare(adamw{});
  compare(sgd{.momentum = 0.9, .dampening = 0.5});
}

BOOST_AUTO_TEST_CASE(no_momentum_allocates_no_slot) {
  model<float> m(7);
  any_executor h(host{});
  auto u = make_updater(m, sgd{.momentum = 0}, h);
  BOOST_TEST(u.slot_bytes() == 0);
  auto w = make_updater(m, sgd{.momentum = 0.9}, h);
  BOOST_TEST(w.slot_bytes() >= static_cast<i64>(4 * (m.a.size() + m.c.size())));
}

BOOST_AUTO_TEST_CASE(scale_is_applied_before_everything_else) {
  model<float> m(8), n(8);
  any_executor h(host{});
  auto u = make_updater(m, clipped{adamw{}, 0.5}, h);
  auto w = make_updater(n, clipped{adamw{}, 0.5}, h);
  for (int t = 0; t < 5; ++t) {
    m.backward(t);
    n.backward(t);
    for (auto* v : {&n.ga, &n.gc})
      for (auto& x : *v) x *= 8;
    BOOST_TEST(u.step(h, m.gradients(), 0.1, 1.0, true).mean_square ==
               w.step(h, n.gradients(), 0.1, 0.125, true).mean_square);
  }
  BOOST_TEST((m.a == n.a && m.c == n.c));
}

BOOST_AUTO_TEST_CASE(misuse_is_named) {
  model<float> m(9);
  any_executor h(host{});
  tensor_list wrong{m.values()[2], m.values()[0]};
  BOOST_CHECK_EXCEPTION(updater{wrong}, std::invalid_argument, says("'a' follows 'c'", "sorted"));
  updater u(m.values());
  u.assign(0, descent{});
  BOOST_CHECK_EXCEPTION(u.allocate(h), std::invalid_argument, says("1 rules for 3 tensors"));
  updater w(m.values());
  BOOST_CHECK_EXCEPTION(w.assign(0, sgd{.momentum = 1.5}), std::invalid_argument, says("momentum", "1.5"));
  BOOST_CHECK_EXCEPTION(w.assign(0, sgd{}, -1), std::invalid_argument, says("'a'", "lr_scale", "-1"));
}

// The rate before is per tensor: inside and outside form stay equal through a thaw.
BOOST_AUTO_TEST_CASE(the_inside_form_corrects_by_the_rate_its_own_tensor_saw_last) {
  auto run = [](momentum_form form) {
    model<float> m(10);
    any_executor h(host{});
    auto u = make_updater(m, sgd{.momentum = 0.9, .form = form}, h);
    for (int t = 0; t < 9; ++t) {
      u.freeze(2, t >= 3 && t < 6);
      m.backward(t);
      u.step(h, m.gradients(), t < 4 ? 1.0 : 0.125, 1.0, true);
    }
    return m.c;
  };
  auto const inside = run(momentum_form::inside), outside = run(momentum_form::outside);
  for (std::size_t k = 0; k < inside.size(); ++k) BOOST_REQUIRE_SMALL(inside[k] - outside[k], 1e-4f);
}

// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.clipped
#include "paper.hpp"

#include <limber/rule/clipped.hpp>
#include <limber/rule/lamb.hpp>
#include <limber/rule/lars.hpp>
#include <limber/rule/master.hpp>
#include <limber/rule/sgd.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

using namespace limber;
using namespace limber::testing;

namespace {

double norm(vector const& x) {
  double sum = 0;
  for (double const v : x) sum += v * v;
  return std::sqrt(sum);
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(follows_the_formula, T, scalars) {
  double const limit = 1.99;  // half of the gradients are longer
  i64 longer = 0;
  check_follows<T>(clipped{sgd{.momentum = 0.9}, limit}, 0.05, [&] {
    return [&, v = zeros()](occasion now, vector g, vector& p) mutable {
      longer += norm(g) > limit;
      double const scale = std::min(1.0, limit / norm(g));
      for (std::size_t i = 0; i < p.size(); ++i) {
        v[i] = 0.9 * v[i] + scale * g[i];
        p[i] -= now.rate * v[i];
      }
    };
  });
  BOOST_TEST(longer > 50);
  BOOST_TEST(longer < trajectory_length - 50);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(clips_by_the_norm_of_the_list_not_of_the_tensor, T, scalars) {
  drive<clipped<descent>, T> run(clipped{descent{}, 2.0}, {T(1), T(1)});
  run.step({T(0.5), T(-0.25)}, 1, 8);  // ‖g‖ of all tensors is 8: a quarter is let through
  BOOST_TEST(run.p()[0] == T(0.875));
  BOOST_TEST(run.p()[1] == T(1.0625));
  run.step({T(0.5), T(-0.25)}, 1, 2);  // within the limit: untouched
  BOOST_TEST(run.p()[0] == T(0.375));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_inner_rule_sees_the_norms_after_clipping, T, scalars) {
  // LARS is blind to the scale of its gradient as long as norm and gradient agree (and λ = 0).
  std::vector<T> const p = as<T>(start);
  drive<lars, T> plain(lars{}, p);
  drive<clipped<lars>, T> limited_one(clipped{lars{}, 0.25}, p);
  for (i64 t = 1; t <= 50; ++t) {
    auto const g = as<T>(gradient_at(t, p.size()));
    plain.step(g, 4);
    limited_one.step(g, 4, 2 * plain_norm(g));
  }
  for (std::size_t i = 0; i < p.size(); ++i)
    BOOST_TEST(plain.p()[i] == limited_one.p()[i],
               boost::test_tools::tolerance(T(sizeof(T) == 4 ? 1e-5 : 1e-12)));

  using rule = clipped<clipped<lars>>;
  rule const nested{clipped{lars{}, 0.5}, 2.0};
  norms<T> const n{T(1), T(4), T(8)};
  auto const c = rule::refine(nested.at<T>({1, 1, 1}), n);
  BOOST_TEST(c.scale == T(0.25));        // 8 → 2
  BOOST_TEST(c.inner.scale == T(0.25));  // 2 → 0.5
  // ‖g‖ of the tensor: 4 → 1 → 0.25
  BOOST_TEST(c.inner.inner.step ==
             lars::refine(lars{}.at<T>({1, 1, 1}), norms<T>{T(1), T(0.25), T(0.5)}).step);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_direction_is_made_from_the_clipped_gradient, T, scalars) {
  // ε as large as the gradient, so that LAMB is not blind to the gradient's scale.
  lamb const inner{.eps = 1};
  drive<lamb, T> by_hand(inner, as<T>(start));
  drive<clipped<lamb>, T> run(clipped{inner, 0.5}, as<T>(start));
  for (i64 t = 1; t <= 50; ++t) {
    auto g = as<T>(gradient_at(t, start.size()));
    run.step(g, 0.01, 4);
    for (T& x : g) x *= T(0.125);  // exact
    by_hand.step(g, 0.01, 0.5);
  }
  BOOST_TEST(run.p() == by_hand.p(), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_norm_that_overflows_clips_to_nothing_and_makes_no_nan) {
  using rule = clipped<lars>;
  float const inf = std::numeric_limits<float>::infinity();
  rule const r{lars{.momentum = 0.9, .weight_decay = 0.01}, 1.0};
  auto const c = rule::refine(r.at<float>({1, 1, 1}), norms<float>{1.0f, inf, inf});
  BOOST_TEST(c.scale == 0.0f);
  BOOST_TEST(math::finite(c.inner.step));
  float u = 0;
  BOOST_TEST(math::finite(rule::update(c, 1.0f, 3e38f, u)));
}

BOOST_AUTO_TEST_CASE(passes_on_what_the_inner_rule_says_of_itself) {
  using plain = clipped<sgd>;
  using deep = clipped<ema<master<lamb>>>;
  static_assert(uses_norms<plain> && !two_pass<plain> && !has_master<plain> && !needs_value_norm<plain>);
  static_assert(uses_norms<deep> && two_pass<deep> && has_master<deep> && needs_value_norm<deep>);
  static_assert(deep::master_slot == 1 && deep::slots.size() == 4 && deep::slots[1] == slot::weight);
  static_assert(std::is_trivially_copyable_v<coefficients_of<deep, float>>);
  BOOST_TEST(slots_used(clipped{sgd{}, 1.0}) == 0);
  BOOST_TEST(slots_used(clipped{sgd{.momentum = 0.5}, 1.0}) == 1);
  BOOST_TEST(slots_used(clipped{adamw{}, 1.0}) == 2);
  rounding const how = rounding_of(clipped{master{sgd{}, true, 5}, 1.0}, 9);
  BOOST_TEST((how.stochastic && how.seed == 5 && how.step == 9));
  BOOST_TEST(!rounding_of(clipped{sgd{}, 1.0}, 9).stochastic);
}

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(clipped{sgd{}, 0.0}, {"clipped", "max_norm", "> 0", "got 0"});
  check_refused(clipped{sgd{}, -2.5}, {"clipped", "max_norm", "got -2.5"});
  check_refused(clipped{sgd{}, not_a_number}, {"clipped", "max_norm", "nan"});
  check_refused(clipped{sgd{.momentum = 1.5}, 1.0}, {"sgd", "momentum", "got 1.5"});
  check_refused(clipped{clipped{sgd{}, -1.0}, 1.0}, {"clipped", "max_norm", "got -1"});
  BOOST_CHECK_NO_THROW(check(clipped{sgd{}, 1e-3}));
}

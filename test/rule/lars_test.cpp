// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.lars
#include "paper.hpp"

#include <limber/rule/lars.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace limber;
using namespace limber::testing;

namespace {

double norm(vector const& x) {
  double sum = 0;
  for (double const v : x) sum += v * v;
  return std::sqrt(sum);
}

formula paper(double momentum, double decay, double trust) {
  return [=, u = zeros()](occasion now, vector g, vector& p) mutable {
    double const local = trust * norm(p) / (norm(g) + decay * norm(p));
    for (std::size_t i = 0; i < p.size(); ++i) {
      u[i] = momentum * u[i] + now.rate * local * (g[i] + decay * p[i]);
      p[i] -= u[i];
    }
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(follows_the_formula, T, scalars) {
  check_follows<T>(lars{}, 2, [] { return paper(0.9, 0, 0.001); });
  check_follows<T>(lars{.weight_decay = 0.05}, 2, [] { return paper(0.9, 0.05, 0.001); });
  check_follows<T>(lars{.momentum = 0.5, .weight_decay = 0.01, .trust_coefficient = 0.01}, 0.5,
                   [] { return paper(0.5, 0.01, 0.01); });
  check_follows<T>(lars{.momentum = 0}, 2, [] { return paper(0, 0, 0.001); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_first_step_is_the_trusted_share_of_the_norm, T, scalars) {
  for (double const size : {1e-3, 1.0, 1e3}) {
    std::vector<T> const p{T(3), T(4)};
    drive<lars, T> run(lars{}, p);
    run.step({static_cast<T>(-0.6 * size), static_cast<T>(0.8 * size)}, 8);
    T const tolerance = T(sizeof(T) == 4 ? 1e-4 : 1e-12);
    BOOST_TEST(run.p()[0] - 3 == T(8 * 0.001 * 5 * 0.6), boost::test_tools::tolerance(tolerance));
    BOOST_TEST(run.p()[1] - 4 == T(-8 * 0.001 * 5 * 0.8), boost::test_tools::tolerance(tolerance));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_ratio_is_one_where_a_norm_is_zero, T, scalars) {
  drive<lars, T> from_zero(lars{.weight_decay = 0.5}, {T(0), T(0)});
  from_zero.step({T(1), T(-2)}, 0.25);
  BOOST_TEST(from_zero.p()[0] == T(-0.25));
  BOOST_TEST(from_zero.p()[1] == T(0.5));
  drive<lars, T> no_gradient(lars{.weight_decay = 0.5}, {T(1), T(-2)});
  no_gradient.step({T(0), T(0)}, 0.25);
  BOOST_TEST(no_gradient.p()[0] == T(0.875));
  BOOST_TEST(no_gradient.p()[1] == T(-1.75));
  drive<lars, T> nothing(lars{}, {T(0)});
  nothing.step({T(0)}, 0.25);
  BOOST_TEST(nothing.p()[0] == 0);
}

// Inside form: what u holds was made at the old rate and keeps it.
BOOST_AUTO_TEST_CASE(a_change_of_rate_leaves_the_momentum_as_it_is) {
  drive<lars, double> run(lars{}, {1.0});
  run.step({1.0}, 1);
  double const u = run.slot(0)[0];
  run.step({0.0}, 100);
  BOOST_TEST(run.slot(0)[0] == 0.9 * u, boost::test_tools::tolerance(1e-14));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(without_momentum_uses_no_slot_and_gives_the_same_bits, T, scalars) {
  lars const rule{.momentum = 0, .weight_decay = 0.01};
  BOOST_TEST(slots_used(rule) == 0);
  BOOST_TEST(slots_used(lars{}) == 1);
  drive<lars, T> run(rule, as<T>(start));
  std::vector<T> with = as<T>(start), u(start.size(), T(0));
  for (i64 t = 1; t <= 100; ++t) {
    auto const g = as<T>(gradient_at(t, start.size()));
    norms<T> const n{static_cast<T>(plain_norm(with)), static_cast<T>(plain_norm(g)), T(0)};
    auto const c = lars::refine(rule.at<T>({t, 4, 4}), n);
    for (std::size_t i = 0; i < with.size(); ++i) with[i] = lars::update(c, with[i], g[i], u[i]);
    run.step(g, 4);
  }
  BOOST_TEST(run.p() == with, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(lars{.momentum = 1}, {"lars", "momentum", "got 1"});
  check_refused(lars{.momentum = not_a_number}, {"lars", "momentum", "nan"});
  check_refused(lars{.weight_decay = -0.5}, {"lars", "weight_decay", "got -0.5"});
  check_refused(lars{.trust_coefficient = 0}, {"lars", "trust_coefficient", "got 0"});
  check_refused(lars{.trust_coefficient = not_a_number}, {"lars", "trust_coefficient", "nan"});
  BOOST_CHECK_NO_THROW(check(lars{}));
}

// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.adam
#include "paper.hpp"

#include <limber/rule/adam.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace limber;
using namespace limber::testing;

namespace {

formula paper(double beta1, double beta2, double eps, double decay) {
  return [=, m = zeros(), v = zeros()](occasion now, vector g, vector& p) mutable {
    auto const t = static_cast<double>(now.t);
    for (std::size_t i = 0; i < p.size(); ++i) {
      double const gi = g[i] + decay * p[i];
      m[i] = beta1 * m[i] + (1 - beta1) * gi;
      v[i] = beta2 * v[i] + (1 - beta2) * gi * gi;
      double const m_hat = m[i] / (1 - std::pow(beta1, t)), v_hat = v[i] / (1 - std::pow(beta2, t));
      p[i] -= now.rate * m_hat / (std::sqrt(v_hat) + eps);
    }
  };
}

}  // namespace

BOOST_AUTO_TEST_SUITE(follows_the_formula)

BOOST_AUTO_TEST_CASE_TEMPLATE(with_the_defaults, T, scalars) {
  check_follows<T>(adam{}, 0.01, [] { return paper(0.9, 0.999, 1e-8, 0); });
}

// So large an ε shows whether it is outside the root and after the bias correction.
BOOST_AUTO_TEST_CASE_TEMPLATE(with_a_large_epsilon, T, scalars) {
  check_follows<T>(adam{.eps = 0.25}, 0.01, [] { return paper(0.9, 0.999, 0.25, 0); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(with_decay_that_passes_through_the_moments, T, scalars) {
  check_follows<T>(adam{.beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.5}, 0.01,
                   [] { return paper(0.8, 0.95, 1e-8, 0.5); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(with_averages_shorter_than_two_steps, T, scalars) {
  check_follows<T>(adam{.beta1 = 0.25, .beta2 = 0.375}, 0.01, [] { return paper(0.25, 0.375, 1e-8, 0); });
  check_follows<T>(adam{.beta1 = 0, .beta2 = 0}, 0.01, [] { return paper(0, 0, 1e-8, 0); });
}

BOOST_AUTO_TEST_SUITE_END()

// Bias correction undoes the averaging: under a constant gradient every step has the length of the rate.
BOOST_AUTO_TEST_CASE_TEMPLATE(a_constant_gradient_moves_by_the_rate_at_every_step, T, scalars) {
  for (T const g : {T(-3), T(1e-6), T(1e6)}) {
    drive<adam, T> run(adam{.eps = 1e-20}, {T{0}});
    for (int t = 1; t <= 100; ++t) {
      T const before = run.p()[0];
      run.step({g}, 0.125);
      BOOST_TEST(before - run.p()[0] == (g > 0 ? T(0.125) : T(-0.125)),
                 boost::test_tools::tolerance(T(sizeof(T) == 4 ? 1e-4 : 1e-11)));
    }
  }
}

// 3e19 is a finite float with an infinite square.
BOOST_AUTO_TEST_CASE(a_huge_finite_gradient_neither_poisons_nor_freezes_its_element) {
  drive<adam, float> run(adam{}, {1.0f});
  run.step({3e19f}, 0.125);
  for (int t = 0; t < 3; ++t) {
    BOOST_TEST(math::finite(run.p()[0]));
    BOOST_TEST(math::finite(run.slot(0)[0]));
    BOOST_TEST(math::finite(run.slot(1)[0]));
    run.step({-3e38f}, 0.125);
  }
  float const then = run.slot(1)[0];
  for (int t = 0; t < 100; ++t) run.step({1.0f}, 0.125);
  BOOST_TEST(run.slot(1)[0] < 0.95f * then);
}

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(adam{.beta1 = 1}, {"adam:", "beta1", "[0, 1)", "got 1"});
  check_refused(adam{.beta1 = not_a_number}, {"adam:", "beta1", "nan"});
  check_refused(adam{.beta2 = -0.5}, {"adam:", "beta2", "got -0.5"});
  check_refused(adam{.beta2 = not_a_number}, {"adam:", "beta2", "nan"});
  check_refused(adam{.eps = 0}, {"adam:", "eps", "> 0", "got 0"});
  check_refused(adam{.eps = 1e-60}, {"adam:", "eps", "range of float", "got 1e-60"});
  check_refused(adam{.eps = not_a_number}, {"adam:", "eps", "nan"});
  check_refused(adam{.weight_decay = -1}, {"adam:", "weight_decay", "got -1"});
  check_refused(adam{.weight_decay = not_a_number}, {"adam:", "weight_decay", "nan"});
  BOOST_CHECK_NO_THROW(check(adam{.beta1 = 0, .beta2 = 0, .weight_decay = 1}));
}

// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.adamw
#include "paper.hpp"

#include <limber/rule/adamw.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace limber;
using namespace limber::testing;

namespace {

formula paper(double beta1, double beta2, double eps, double decay) {
  return [=, m = zeros(), v = zeros()](occasion now, vector g, vector& p) mutable {
    auto const t = static_cast<double>(now.t);
    for (std::size_t i = 0; i < p.size(); ++i) {
      m[i] = beta1 * m[i] + (1 - beta1) * g[i];
      v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
      double const m_hat = m[i] / (1 - std::pow(beta1, t)), v_hat = v[i] / (1 - std::pow(beta2, t));
      p[i] = p[i] - now.rate * decay * p[i] - now.rate * m_hat / (std::sqrt(v_hat) + eps);
    }
  };
}

}  // namespace

BOOST_AUTO_TEST_SUITE(follows_the_formula)

BOOST_AUTO_TEST_CASE_TEMPLATE(with_the_defaults, T, scalars) {
  check_follows<T>(adamw{}, 0.01, [] { return paper(0.9, 0.999, 1e-8, 0.01); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(with_a_large_epsilon, T, scalars) {
  check_follows<T>(adamw{.eps = 0.25}, 0.01, [] { return paper(0.9, 0.999, 0.25, 0.01); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(with_much_decay, T, scalars) {
  check_follows<T>(adamw{.beta1 = 0.95, .beta2 = 0.95, .weight_decay = 0.5}, 0.01,
                   [] { return paper(0.95, 0.95, 1e-8, 0.5); });
}

BOOST_AUTO_TEST_SUITE_END()

// Decoupled: without gradients p shrinks by 1 − η λ a step, and the moments know nothing of it.
BOOST_AUTO_TEST_CASE(decay_alone_is_geometric_and_leaves_the_moments_at_zero) {
  drive<adamw, double> run(adamw{.weight_decay = 0.5}, start);
  double expected = 1;
  for (i64 t = 1; t <= 200; ++t) {
    double const rate = 0.01 * rate_at(t);
    run.step(vector(start.size(), 0.0), rate);
    expected *= 1 - rate * 0.5;
    for (std::size_t i = 0; i < start.size(); ++i)
      BOOST_TEST(run.p()[i] == start[i] * expected, boost::test_tools::tolerance(1e-12));
  }
  BOOST_TEST(run.slot(0) == vector(start.size(), 0.0), boost::test_tools::per_element());
  BOOST_TEST(run.slot(1) == vector(start.size(), 0.0), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(without_decay_is_adam_bit_for_bit, T, scalars) {
  drive<adamw, T> a(adamw{.weight_decay = 0}, as<T>(start));
  drive<adam, T> b(adam{}, as<T>(start));
  for (i64 t = 1; t <= 100; ++t) {
    auto const g = as<T>(gradient_at(t, start.size()));
    a.step(g, 0.01);
    b.step(g, 0.01);
  }
  BOOST_TEST(a.p() == b.p(), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(adamw{.beta1 = 1.5}, {"adamw:", "beta1", "got 1.5"});
  check_refused(adamw{.beta2 = not_a_number}, {"adamw:", "beta2", "nan"});
  check_refused(adamw{.eps = -1}, {"adamw:", "eps", "got -1"});
  check_refused(adamw{.weight_decay = -0.01}, {"adamw:", "weight_decay", "got -0.01"});
  BOOST_CHECK_NO_THROW(check(adamw{}));
}

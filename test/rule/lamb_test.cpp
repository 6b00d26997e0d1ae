// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.lamb
#include "paper.hpp"

#include <limber/rule/lamb.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>

using namespace limber;
using namespace limber::testing;

namespace {

double norm(vector const& x) {
  double sum = 0;
  for (double const v : x) sum += v * v;
  return std::sqrt(sum);
}

formula paper(double beta1, double beta2, double eps, double decay, double limit) {
  return [=, m = zeros(), v = zeros()](occasion now, vector g, vector& p) mutable {
    auto const t = static_cast<double>(now.t);
    vector d(p.size());
    for (std::size_t i = 0; i < p.size(); ++i) {
      m[i] = beta1 * m[i] + (1 - beta1) * g[i];
      v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
      double const m_hat = m[i] / (1 - std::pow(beta1, t)), v_hat = v[i] / (1 - std::pow(beta2, t));
      d[i] = m_hat / (std::sqrt(v_hat) + eps) + decay * p[i];
    }
    double const ratio = std::min(norm(p), limit) / norm(d);
    for (std::size_t i = 0; i < p.size(); ++i) p[i] -= now.rate * ratio * d[i];
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(follows_the_formula, T, scalars) {
  check_follows<T>(lamb{}, 0.005, [] { return paper(0.9, 0.999, 1e-6, 0.01, infinity); });
  check_follows<T>(lamb{.weight_decay = 0.5}, 0.005, [] { return paper(0.9, 0.999, 1e-6, 0.5, infinity); });
  check_follows<T>(lamb{.beta1 = 0.8, .beta2 = 0.95, .eps = 0.25, .weight_decay = 0}, 0.005,
                   [] { return paper(0.8, 0.95, 0.25, 0, infinity); });
  check_follows<T>(lamb{.max_value_norm = 4}, 0.005, [] { return paper(0.9, 0.999, 1e-6, 0.01, 4); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(every_step_is_the_rate_times_the_limited_norm, T, scalars) {
  for (double const limit : {2.0, infinity}) {
    drive<lamb, T> run(lamb{.max_value_norm = limit}, as<T>(start));
    for (i64 t = 1; t <= 50; ++t) {
      auto const before = run.p();
      run.step(as<T>(gradient_at(t, start.size())), 0.125);
      std::vector<T> moved(before.size());
      for (std::size_t i = 0; i < before.size(); ++i) moved[i] = run.p()[i] - before[i];
      BOOST_TEST(plain_norm(moved) == 0.125 * std::min(plain_norm(before), limit),
                 boost::test_tools::tolerance(sizeof(T) == 4 ? 1e-5 : 1e-12));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_ratio_is_one_where_a_norm_is_zero, T, scalars) {
  T const tolerance = T(1e-5);  // ε is 1e-6 of the gradient
  drive<lamb, T> from_zero(lamb{}, {T(0), T(0)});
  from_zero.step({T(1), T(-1)}, 0.25);
  BOOST_TEST(from_zero.p()[0] == T(-0.25), boost::test_tools::tolerance(tolerance));
  BOOST_TEST(from_zero.p()[1] == T(0.25), boost::test_tools::tolerance(tolerance));
  drive<lamb, T> no_direction(lamb{.weight_decay = 0}, {T(1), T(-2)});
  no_direction.step({T(0), T(0)}, 0.25);
  BOOST_TEST(no_direction.p()[0] == 1);
  BOOST_TEST(no_direction.p()[1] == -2);
}

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(lamb{.beta1 = 1}, {"lamb:", "beta1", "got 1"});
  check_refused(lamb{.beta2 = not_a_number}, {"lamb:", "beta2", "nan"});
  check_refused(lamb{.eps = 0}, {"lamb:", "eps", "got 0"});
  check_refused(lamb{.weight_decay = -0.5}, {"lamb:", "weight_decay", "got -0.5"});
  check_refused(lamb{.max_value_norm = 0}, {"lamb:", "max_value_norm", "got 0"});
  check_refused(lamb{.max_value_norm = not_a_number}, {"lamb:", "max_value_norm", "nan"});
  BOOST_CHECK_NO_THROW(check(lamb{}));
}

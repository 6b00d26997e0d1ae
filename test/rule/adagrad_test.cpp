// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.adagrad
#include "paper.hpp"

#include <limber/rule/adagrad.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace limber;
using namespace limber::testing;

namespace {

/// As PyTorch writes it, with the initial accumulator in the sum.
formula paper(double lr_decay, double decay, double initial, double eps) {
  return [=, sum = vector(start.size(), initial)](occasion now, vector g, vector& p) mutable {
    double const rate = now.rate / (1 + static_cast<double>(now.t - 1) * lr_decay);
    for (std::size_t i = 0; i < p.size(); ++i) {
      double const gi = g[i] + decay * p[i];
      sum[i] += gi * gi;
      p[i] -= rate * gi / (std::sqrt(sum[i]) + eps);
    }
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(follows_the_formula, T, scalars) {
  check_follows<T>(adagrad{}, 0.1, [] { return paper(0, 0, 0, 1e-10); });
  check_follows<T>(adagrad{.lr_decay = 0.05}, 0.1, [] { return paper(0.05, 0, 0, 1e-10); });
  check_follows<T>(adagrad{.weight_decay = 0.125}, 0.1, [] { return paper(0, 0.125, 0, 1e-10); });
  check_follows<T>(adagrad{.initial_accumulator = 2}, 0.1, [] { return paper(0, 0, 2, 1e-10); });
  check_follows<T>(adagrad{.lr_decay = 0.01, .weight_decay = 0.01, .initial_accumulator = 0.1, .eps = 0.5},
                   0.1, [] { return paper(0.01, 0.01, 0.1, 0.5); });
}

// Σ 1/√k under a gradient of constant size.
BOOST_AUTO_TEST_CASE_TEMPLATE(a_constant_gradient_moves_by_the_rate_over_the_root_of_t, T, scalars) {
  drive<adagrad, T> run(adagrad{.eps = 1e-20}, {T(0)});
  T sum = 0;
  for (int t = 1; t <= 100; ++t) {
    run.step({T(-3)}, 0.5);
    sum += T(0.5) / std::sqrt(static_cast<T>(t));
    BOOST_TEST(run.p()[0] == sum, boost::test_tools::tolerance(T(sizeof(T) == 4 ? 1e-5 : 1e-12)));
  }
}

BOOST_AUTO_TEST_CASE(a_huge_finite_gradient_leaves_a_finite_sum) {
  drive<adagrad, float> run(adagrad{.initial_accumulator = 1e38}, {1.0f});
  for (int t = 0; t < 3; ++t) run.step({3e19f}, 0.5);
  BOOST_TEST(math::finite(run.slot(0)[0]));
  BOOST_TEST(run.p()[0] < 1.0f);
  BOOST_TEST(math::finite(run.p()[0]));
}

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(adagrad{.lr_decay = -1}, {"adagrad", "lr_decay", "got -1"});
  check_refused(adagrad{.weight_decay = not_a_number}, {"adagrad", "weight_decay", "nan"});
  check_refused(adagrad{.initial_accumulator = -0.5}, {"adagrad", "initial_accumulator", "got -0.5"});
  check_refused(adagrad{.eps = 0}, {"adagrad", "eps", "got 0"});
  BOOST_CHECK_NO_THROW(check(adagrad{}));
}

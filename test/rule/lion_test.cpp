// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.lion
#include "paper.hpp"

#include <limber/rule/lion.hpp>

#include <boost/test/unit_test.hpp>

#include <limits>

using namespace limber;
using namespace limber::testing;

namespace {

formula paper(double beta1, double beta2, double decay) {
  return [=, m = zeros()](occasion now, vector g, vector& p) mutable {
    for (std::size_t i = 0; i < p.size(); ++i) {
      double const d = beta1 * m[i] + (1 - beta1) * g[i];
      double const sign = d > 0 ? 1 : d < 0 ? -1 : 0;
      p[i] = p[i] - now.rate * (sign + decay * p[i]);
      m[i] = beta2 * m[i] + (1 - beta2) * g[i];
    }
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(follows_the_formula, T, scalars) {
  check_follows<T>(lion{}, 0.01, [] { return paper(0.9, 0.99, 0); });
  check_follows<T>(lion{.beta1 = 0.95, .beta2 = 0.98, .weight_decay = 0.5}, 0.01,
                   [] { return paper(0.95, 0.98, 0.5); });
  check_follows<T>(lion{.beta1 = 0.25, .beta2 = 0.125}, 0.01, [] { return paper(0.25, 0.125, 0); });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(moves_by_the_rate_or_not_at_all, T, scalars) {
  T const tiny = std::numeric_limits<T>::denorm_min();
  struct {
    T gradient, moved;
  } const cases[] = {
      {T(5), T(-0.125)}, {T(-1e-30), T(0.125)}, {T(0), T(0)}, {-T(0), T(0)}, {128 * tiny, T(-0.125)}};
  for (auto const& [gradient, moved] : cases) {
    drive<lion, T> run(lion{}, {T(1)});
    run.step({gradient}, 0.125);
    BOOST_TEST(run.p()[0] == 1 + moved);
  }
}

// After a gradient of 1, m is 0.01. Then the direction is just above 0 with this m, below it with the next.
BOOST_AUTO_TEST_CASE(takes_the_direction_before_the_momentum_moves) {
  drive<lion, double> run(lion{}, {0.0});
  run.step({1.0}, 1);
  BOOST_TEST(run.slot(0)[0] == 0.01, boost::test_tools::tolerance(1e-14));
  run.step({-0.0895}, 1);  // 0.9·0.01 − 0.1·0.0895 = 5e-5; with the new m 0.9·0.009005 − 0.00895 < 0
  BOOST_TEST(run.p()[0] == -2);
}

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(lion{.beta1 = 1}, {"lion", "beta1", "got 1"});
  check_refused(lion{.beta1 = not_a_number}, {"lion", "beta1", "nan"});
  check_refused(lion{.beta2 = -0.25}, {"lion", "beta2", "got -0.25"});
  check_refused(lion{.weight_decay = -2}, {"lion", "weight_decay", "got -2"});
  BOOST_CHECK_NO_THROW(check(lion{.beta1 = 0, .beta2 = 0}));
}

// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.papers.statistics
#include "../../bench/papers/statistics.hpp"

#include "core/says.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <vector>

using namespace limber::papers;
using limber::test::says;

namespace {

void is_near(double value, double expected, double tolerance) {
  BOOST_TEST_CONTEXT(value << ", expected " << expected)
  BOOST_TEST(std::abs(value - expected) <= tolerance);
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_interval_of_a_mean_is_that_of_student) {
  // s = √2.5, and 2.7764 for 4 degrees of freedom.
  auto const e = estimated({1, 2, 3, 4, 5});
  is_near(e.value, 3, 1e-12);
  is_near(e.high - e.value, 2.7764 * std::sqrt(2.5 / 5), 1e-3);
  is_near(e.value - e.low, e.high - e.value, 1e-12);
  is_near(deviation({1, 2, 3, 4, 5}), std::sqrt(2.5), 1e-12);
}

BOOST_AUTO_TEST_CASE(quantiles_fall_to_that_of_the_normal_distribution) {
  is_near(t_quantile(1), 12.706, 1e-3);
  is_near(t_quantile(9), 2.262, 1e-3);
  is_near(t_quantile(40), 2.021, 2e-3);
  is_near(t_quantile(1'000'000), 1.96, 1e-3);
  for (std::size_t n = 1; n < 60; ++n) BOOST_TEST(t_quantile(n) > t_quantile(n + 1));
}

BOOST_AUTO_TEST_CASE(a_difference_is_taken_seed_by_seed) {
  // Far apart from seed to seed, but always by 1 in a pair.
  auto const e = difference({11, 51, 91}, {10, 50, 90});
  is_near(e.value, 1, 1e-12);
  is_near(e.low, 1, 1e-9);
  is_near(e.high, 1, 1e-9);
}

BOOST_AUTO_TEST_CASE(a_ratio_is_a_geometric_mean) {
  auto const e = ratio({2, 8}, {1, 1});
  is_near(e.value, 4, 1e-12);
  is_near(ratio({2, 4, 8}, {1, 2, 4}).low, 2, 1e-9);
}

BOOST_AUTO_TEST_CASE(one_value_says_nothing_about_its_interval) {
  auto const e = estimated({7});
  BOOST_TEST(e.value == 7);
  BOOST_TEST(std::isinf(e.low));
  BOOST_TEST(std::isinf(e.high));
}

BOOST_AUTO_TEST_CASE(medians_of_even_and_odd_numbers) {
  BOOST_TEST(median({3, 1, 2}) == 2);
  BOOST_TEST(median({4, 1, 2, 3}) == 2.5);
}

BOOST_AUTO_TEST_CASE(what_is_not_paired_is_refused) {
  BOOST_CHECK_EXCEPTION((void)difference({1, 2}, {1}), std::invalid_argument, says("2 values but 1"));
  BOOST_CHECK_EXCEPTION((void)mean({}), std::invalid_argument, says("no values"));
}

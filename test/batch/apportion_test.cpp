// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.batch.apportion
#include <limber/batch/apportion.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

using limber::apportion;
using limber::i64;
using limber::test::says;
using counts = std::vector<i64>;
using speeds = std::vector<double>;

namespace {

i64 sum(counts const& v) { return std::accumulate(v.begin(), v.end(), i64{0}); }

// Hamilton's method by its definition: give one at a time to the largest remaining claim.
counts by_definition(i64 total, counts const& weight) {
  i64 const all = sum(weight);
  counts share(weight.size()), rest(weight.size());
  for (std::size_t i = 0; i < weight.size(); ++i) {
    share[i] = total * weight[i] / all;
    rest[i] = total * weight[i] % all;
  }
  while (sum(share) < total) {
    auto const best = std::max_element(rest.begin(), rest.end());  // the first of equals
    ++share[static_cast<std::size_t>(best - rest.begin())];
    *best = -1;
  }
  return share;
}

}  // namespace

BOOST_AUTO_TEST_CASE(textbook_examples_come_out_as_in_the_book) {
  BOOST_TEST(apportion(100, counts{21878, 9713, 4167, 3252, 1065}) == (counts{55, 24, 10, 8, 3}),
             boost::test_tools::per_element());
  // The golden case of dynamic batch sizes: 64 samples for speeds 14 : 16 : 20 : 14.
  BOOST_TEST(apportion(64, speeds{1.4, 1.6, 2.0, 1.4}) == (counts{14, 16, 20, 14}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(equal_remainders_go_to_the_lower_rank) {
  BOOST_TEST(apportion(5, counts{1, 1, 1}) == (counts{2, 2, 1}), boost::test_tools::per_element());
  BOOST_TEST(apportion(5, speeds{1, 1, 1}) == (counts{2, 2, 1}), boost::test_tools::per_element());
  // Quotas 2/3, 8/3, 2/3: three equal remainders for two samples, equal in whole numbers only.
  BOOST_TEST(apportion(4, counts{1, 4, 1}) == (counts{1, 3, 0}), boost::test_tools::per_element());
  BOOST_TEST(apportion(1, counts{2, 2}) == (counts{1, 0}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(random_whole_weights_follow_the_definition) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 2000; ++trial) {
    counts weight(1 + random() % 20);
    for (i64& w : weight) w = static_cast<i64>(random() % 50);
    weight[random() % weight.size()] += 1;
    auto const total = static_cast<i64>(random() % 500);
    BOOST_TEST_REQUIRE(apportion(total, weight) == by_definition(total, weight),
                       boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(random_speeds_sum_up_and_stay_within_one_of_their_quota) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int trial = 0; trial < 2000; ++trial) {
    speeds weight(1 + random() % 20);
    for (double& w : weight) w = random() % 5 == 0 ? 0 : std::pow(10, 8 * uniform(random) - 4);
    weight[random() % weight.size()] = 1;
    auto const total = static_cast<i64>(random() % 100000);
    auto const share = apportion(total, weight);
    BOOST_TEST_REQUIRE(sum(share) == total);
    long double all = 0;
    for (double const w : weight) all += w;
    for (std::size_t i = 0; i < weight.size(); ++i) {
      BOOST_TEST_REQUIRE(std::abs(static_cast<long double>(share[i]) -
                                  static_cast<long double>(total) * weight[i] / all) < 1 + 1e-9L);
      if (weight[i] == 0) BOOST_TEST_REQUIRE(share[i] == 0);
    }
  }
}

BOOST_AUTO_TEST_CASE(totals_at_the_edge_of_double_still_sum_up) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform(0, 1);
  i64 const total = i64{1} << 53;
  for (int trial = 0; trial < 200; ++trial) {
    speeds weight(3 + random() % 5);
    for (double& w : weight) w = uniform(random);
    BOOST_TEST_REQUIRE(sum(apportion(total, weight)) == total);
  }
  BOOST_TEST(sum(apportion(total, speeds{5e-324, 1e290, 1e-10})) == total);
}

BOOST_AUTO_TEST_CASE(a_million_ranks_are_no_problem) {
  counts weight(1'000'000);
  std::mt19937_64 random(4);
  for (i64& w : weight) w = static_cast<i64>(random() % 1000);
  BOOST_TEST(sum(apportion(123'456'789, weight)) == 123'456'789);
  BOOST_TEST(sum(apportion(7, weight)) == 7);
  BOOST_TEST(sum(apportion(123'456'789, speeds(weight.begin(), weight.end()))) == 123'456'789);
}

BOOST_AUTO_TEST_CASE(nothing_to_divide_is_legal) {
  BOOST_TEST(apportion(0, counts{3, 4}) == (counts{0, 0}), boost::test_tools::per_element());
  BOOST_TEST(apportion(0, speeds{3, 4}) == (counts{0, 0}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(bad_input_is_named_with_its_value) {
  double const nan = std::numeric_limits<double>::quiet_NaN();
  auto const big = std::numeric_limits<i64>::max();
  BOOST_CHECK_EXCEPTION((void)apportion(-3, counts{1}), std::invalid_argument,
                        says("apportion: total", "-3"));
  BOOST_CHECK_EXCEPTION((void)apportion(3, counts{}), std::invalid_argument, says("no weights"));
  BOOST_CHECK_EXCEPTION((void)apportion(3, counts{1, -2}), std::invalid_argument,
                        says("weight of rank 1", "-2"));
  BOOST_CHECK_EXCEPTION((void)apportion(3, counts{0, 0}), std::invalid_argument, says("positive sum, got 0"));
  BOOST_CHECK_EXCEPTION((void)apportion(0, counts{big, 1}), std::invalid_argument,
                        says("up to rank 1 overflow"));
  BOOST_CHECK_EXCEPTION((void)apportion(4, counts{1, big / 2}), std::invalid_argument,
                        says("total 4 x weight", "rank 1"));
  BOOST_CHECK_EXCEPTION((void)apportion(3, speeds{1, nan}), std::invalid_argument, says("rank 1", "nan"));
  BOOST_CHECK_EXCEPTION((void)apportion(3, speeds{1 / 0.0}), std::invalid_argument, says("rank 0", "inf"));
  BOOST_CHECK_EXCEPTION((void)apportion(3, speeds{1, -0.5}), std::invalid_argument, says("rank 1", "-0.5"));
  BOOST_CHECK_EXCEPTION((void)apportion(3, speeds{0, 0}), std::invalid_argument, says("positive sum"));
  BOOST_CHECK_EXCEPTION((void)apportion(3, speeds{1e308, 1e308}), std::invalid_argument, says("sum to inf"));
  BOOST_CHECK_EXCEPTION((void)apportion((i64{1} << 53) + 1, speeds{1}), std::invalid_argument,
                        says("at most 2^53", "9007199254740993"));
}

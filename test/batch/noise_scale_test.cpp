// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.batch.noise_scale
#include <limber/batch/noise_scale.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

using namespace limber;
using limber::test::says;
using counts = std::vector<i64>;

namespace {

double const infinity = std::numeric_limits<double>::infinity();

// Facts in which the noise scale is `scale` and the plan in force holds `total` samples.
struct situation {
  batch_plan plan;
  batch_facts facts;
  situation(double scale, i64 total, int world = 4) : plan{.total = total} {
    facts.world = world;
    facts.now.noise = {.variance = scale, .square = 1, .count = 1000};
    facts.current = total > 0 ? &plan : nullptr;
  }
  situation(situation const&) = delete;
};

i64 chosen(noise_scale const& policy, double scale, i64 total) {
  situation const s(scale, total);
  return policy(s.facts).total;
}

noise_scale const usual{.min_batch = 32, .max_batch = 4096, .growth = 1e6};

}  // namespace

BOOST_AUTO_TEST_CASE(the_noise_scale_is_the_ratio_of_the_two_estimates) {
  BOOST_TEST(simple_noise_scale({.variance = 50, .square = 0.5, .count = 1}) == 100);
  BOOST_TEST(simple_noise_scale({.variance = 50, .square = 0, .count = 1}) == infinity);
  BOOST_TEST(simple_noise_scale({.variance = 50, .square = -1, .count = 1}) == infinity);
  BOOST_TEST(simple_noise_scale({.variance = 0, .square = 3, .count = 1}) == 0);
  BOOST_TEST(simple_noise_scale({.variance = -2, .square = -3, .count = 1}) == 0);
  BOOST_TEST(simple_noise_scale({}) == 0);
}

BOOST_AUTO_TEST_CASE(unequal_batches_lead_to_the_true_noise_scale) {
  // Gradients of dimension 100, per-sample variance 0.5 each: tr(Σ) = 50; |G|² = 0.5. B_simple = 100.
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  std::vector<double> const shares{3, 5, 9, 15};
  double const batch = 32, mean = std::sqrt(0.5 / 100);
  batch_facts facts{.world = 4};
  for (int step = 0; step < 1500; ++step) {
    double weighted = 0, square = 0;
    for (int d = 0; d < 100; ++d) {
      double all = 0;
      for (double const b : shares) {
        double const g = mean + normal(random) * std::sqrt(0.5 / b);
        weighted += b * g * g;
        all += b / batch * g;
      }
      square += all * all;
    }
    facts.now.noise.update(4, batch, weighted, square, 0.9999);
  }
  BOOST_TEST(simple_noise_scale(facts.now.noise) == 100, boost::test_tools::tolerance(0.15));
  BOOST_TEST(usual(facts).total == 128);
}

BOOST_AUTO_TEST_CASE(the_nearest_size_is_chosen_by_ratio) {
  BOOST_TEST(chosen(usual, 300, 0) == 256);
  BOOST_TEST(chosen(usual, 256 * 1.41, 0) == 256);
  BOOST_TEST(chosen(usual, 256 * 1.42, 0) == 512);
  BOOST_TEST(chosen(usual, 1, 0) == 32);
  BOOST_TEST(chosen(usual, 1e9, 0) == 4096);
  BOOST_TEST(chosen(usual, infinity, 0) == 4096);
  noise_scale const odd{
      .min_batch = 10, .max_batch = 100, .growth = 1e6, .step = 1.5};  // 10 15 22.5 … 75.9 100
  BOOST_TEST(chosen(odd, 22, 0) == 23);
  BOOST_TEST(chosen(odd, 80, 0) == 76);
  BOOST_TEST(chosen(odd, 99, 0) == 100);
}

BOOST_AUTO_TEST_CASE(the_batch_stays_until_the_estimate_leaves_it_by_a_step) {
  BOOST_TEST(chosen(usual, 511, 256) == 256);
  BOOST_TEST(chosen(usual, 129, 256) == 256);
  BOOST_TEST(chosen(usual, 520, 256) == 512);
  BOOST_TEST(chosen(usual, 127, 256) == 128);
  // But the ends of the range are always within reach.
  BOOST_TEST(chosen(usual, 30, 64) == 32);
  BOOST_TEST(chosen(usual, 5000, 2048) == 4096);
  BOOST_TEST(chosen(usual, 3000, 4096) == 4096);
}

BOOST_AUTO_TEST_CASE(noise_below_the_root_of_a_step_changes_the_batch_once_at_most) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int trial = 0; trial < 300; ++trial) {
    double const truth = 20 * std::pow(10, 3 * uniform(random));
    i64 total = 0;
    int changes = 0;
    for (int plan = 0; plan < 100; ++plan) {
      double const jitter = std::pow(2, (uniform(random) - 0.5) * 0.49);  // in all a factor 1.4 wide
      i64 const then = chosen(usual, truth * jitter, total);
      changes += plan > 0 && then != total;
      total = then;
    }
    BOOST_TEST_REQUIRE(changes <= 1);
  }
}

BOOST_AUTO_TEST_CASE(growth_per_plan_is_limited_and_shrinking_is_not) {
  noise_scale const policy{.min_batch = 32, .max_batch = 4096, .growth = 4};
  counts seen;
  i64 total = 0;
  for (int k = 0; k < 5; ++k) seen.push_back(total = chosen(policy, infinity, total));
  BOOST_TEST(seen == (counts{128, 512, 2048, 4096, 4096}), boost::test_tools::per_element());
  BOOST_TEST(chosen(policy, 33, 4096) == 32);
}

BOOST_AUTO_TEST_CASE(every_step_reaches_the_top_whatever_rounding_does) {
  for (double const step : {1.01, 1.1, 1.3, 1.5, 2.0, 3.7})
    for (i64 const first : {i64{4}, i64{33}, i64{101}}) {
      noise_scale const policy{.min_batch = first, .max_batch = 100'000, .growth = step, .step = step};
      i64 total = 0;
      for (int k = 0; k < 3000 && total < 100'000; ++k) {
        i64 const then = chosen(policy, infinity, total);
        if (total > 0)
          BOOST_TEST_REQUIRE(static_cast<double>(then) <= step * (static_cast<double>(total) + 0.5) + 0.5);
        total = then;
      }
      BOOST_TEST(total == 100'000);
    }
}

BOOST_AUTO_TEST_CASE(the_batch_stays_while_little_is_known_of_the_noise) {
  situation s(1000, 256);
  s.facts.now.noise.count = 9;
  BOOST_TEST(usual(s.facts).total == 256);
  s.facts.now.noise.count = 10;
  BOOST_TEST(usual(s.facts).total == 1024);
  // Even who waits for nothing needs one estimate.
  s.facts.now.noise.count = 0;
  noise_scale const hasty{.min_batch = 32, .max_batch = 64, .min_estimates = 0};
  BOOST_TEST(hasty(s.facts).total == 64);
  s.facts.current = nullptr;
  BOOST_TEST(hasty(s.facts).total == 32);
}

BOOST_AUTO_TEST_CASE(shares_are_equal_or_follow_speeds) {
  situation s(1030, 512);
  s.plan.share = {128, 128, 128, 128};
  s.facts.seconds = {4, 4, 2, 1};
  auto const equal = usual(s.facts);
  BOOST_TEST(equal.share == (counts{256, 256, 256, 256}), boost::test_tools::per_element());
  BOOST_TEST(equal.speed.empty());
  auto policy = usual;
  policy.share = sharing::by_speed;
  auto const dealt = policy(s.facts);
  BOOST_TEST(dealt.share == (counts{128, 128, 256, 512}), boost::test_tools::per_element());
  BOOST_TEST(dealt.speed == (std::vector<double>{32, 32, 64, 128}), boost::test_tools::per_element());
  // Speeds are learnt also while the batch stays.
  s.facts.now.noise.variance = 600;
  BOOST_TEST(policy(s.facts).share == (counts{64, 64, 128, 256}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(bad_sizes_are_named_with_their_value) {
  auto const bad = [](noise_scale const& policy, auto... parts) {
    BOOST_CHECK_EXCEPTION((void)policy({.world = 4}), std::invalid_argument, says("noise_scale", parts...));
  };
  BOOST_CHECK_EXCEPTION((void)usual({.world = 0}), std::invalid_argument,
                        says("noise_scale: world", "got 0"));
  bad({.min_batch = 3, .max_batch = 9}, "min_batch 3 is smaller than 4 workers");
  bad({.min_batch = 8, .max_batch = 7}, "max_batch", "[8, 2^53], got 7");
  bad({.min_batch = 8, .max_batch = (i64{1} << 53) + 1}, "max_batch", "9007199254740993");
  bad({.min_batch = 8, .max_batch = 9, .step = 1}, "step", "got 1");
  bad({.min_batch = 8, .max_batch = 9, .growth = 1.5}, "growth", "step 2", "got 1.5");
  bad({.min_batch = 8, .max_batch = 9, .min_estimates = -1}, "min_estimates", "got -1");
  bad({.min_batch = 8, .max_batch = 9, .smoothing = 1}, "smoothing", "got 1");
}

// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.batch.goodput
#include <limber/batch/goodput.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace limber;
using limber::test::says;

namespace {

double const infinity = std::numeric_limits<double>::infinity();

batch_facts facts_of(int world, double phi, i64 count = 1000) {
  batch_facts f{.world = world};
  f.now.noise = {.variance = phi, .square = 1, .count = count};
  return f;
}

// The formula as it is printed, in long double.
long double printed(goodput const& p, i64 batch, int world, long double phi) {
  long double const share = std::ceil(static_cast<long double>(batch) / world);
  long double const grad = p.alpha_grad + p.beta_grad * share;
  long double const sync =
      world == 1 ? 0.0L : p.alpha_sync + p.beta_sync * static_cast<long double>(world - 2);
  long double const g = p.gamma;
  long double const step = std::pow(std::pow(grad, g) + std::pow(sync, g), 1 / g);
  auto const b = static_cast<long double>(batch), b0 = static_cast<long double>(p.base_batch);
  return b / step * (phi + b0) / (phi + b);
}

goodput const usual{.base_batch = 128,
                    .max_batch = 8192,
                    .alpha_grad = 0.02,
                    .beta_grad = 0.001,
                    .alpha_sync = 0.1,
                    .beta_sync = 0.01,
                    .gamma = 2};

}  // namespace

BOOST_AUTO_TEST_CASE(a_small_example_by_hand) {
  goodput const p{.base_batch = 100,
                  .max_batch = 400,
                  .alpha_grad = 1,
                  .beta_grad = 0.02,
                  .alpha_sync = 2,
                  .beta_sync = 1};
  BOOST_TEST(p.step_seconds(200, 4) == 1 + 0.02 * 50 + 2 + 2);
  BOOST_TEST(p.step_seconds(201, 4) == 1 + 0.02 * 51 + 2 + 2, boost::test_tools::tolerance(1e-15));
  BOOST_TEST(p.step_seconds(200, 1) == 5);  // alone, nothing is synchronised
  BOOST_TEST(p.efficiency(300, 100) == 0.5);
  BOOST_TEST(p.efficiency(100, 7) == 1);
  BOOST_TEST(p.efficiency(300, infinity) == 1);
  BOOST_TEST(p.efficiency(400, 0) == 0.25);
  BOOST_TEST(p.at(300, 1, 100) == 300.0 / 7 / 2, boost::test_tools::tolerance(1e-15));
}

BOOST_AUTO_TEST_CASE(random_parameters_follow_the_printed_formula) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int trial = 0; trial < 2000; ++trial) {
    goodput const p{.base_batch = 1 + static_cast<i64>(random() % 500),
                    .max_batch = 5000,
                    .alpha_grad = uniform(random),
                    .beta_grad = 0.01 * uniform(random) + 1e-6,
                    .alpha_sync = uniform(random),
                    .beta_sync = 0.1 * uniform(random),
                    .gamma = 1 + 9 * uniform(random)};
    int const world = 1 + static_cast<int>(random() % 64);
    i64 const batch = 1 + static_cast<i64>(random() % 5000);
    double const phi = std::pow(10, 5 * uniform(random) - 1);
    BOOST_TEST_REQUIRE(p.at(batch, world, phi) == static_cast<double>(printed(p, batch, world, phi)),
                       boost::test_tools::tolerance(1e-12));
  }
}

BOOST_AUTO_TEST_CASE(overlap_goes_from_the_sum_to_the_longer_of_the_two) {
  auto p = usual;
  double const grad = 0.02 + 0.001 * 128, sync = 0.1 + 0.01 * 6;
  p.gamma = 1;
  BOOST_TEST(p.step_seconds(1024, 8) == grad + sync, boost::test_tools::tolerance(1e-14));
  double before = p.step_seconds(1024, 8);
  for (p.gamma = 2; p.gamma <= 10; ++p.gamma) {
    BOOST_TEST(p.step_seconds(1024, 8) < before);
    BOOST_TEST(p.step_seconds(1024, 8) > std::max(grad, sync));
    before = p.step_seconds(1024, 8);
  }
}

BOOST_AUTO_TEST_CASE(the_best_batch_is_as_good_as_any_other_between_the_bounds) {
  for (int const world : {1, 2, 8, 64})
    for (double const phi : {1.0, 50.0, 700.0, 2e4, 1e7}) {
      i64 const best = usual(facts_of(world, phi)).total;
      double top = 0;
      for (i64 b = std::max<i64>(128, world); b <= 8192; ++b) top = std::max(top, usual.at(b, world, phi));
      // The grid has neighbours 9 % apart, near a flat maximum; a share's ⌈B / n⌉ costs some more.
      BOOST_TEST(usual.at(best, world, phi) >= 0.98 * top);
    }
}

BOOST_AUTO_TEST_CASE(more_noise_and_more_workers_ask_for_larger_batches) {
  i64 before = 0;
  for (double const phi : {0.0, 10.0, 100.0, 1e3, 1e4, 1e5, infinity}) {
    i64 const best = usual(facts_of(8, phi)).total;
    BOOST_TEST(best >= before);
    before = best;
  }
  BOOST_TEST(before == 8192);
  BOOST_TEST(usual(facts_of(8, 0)).total == 128);
  BOOST_TEST(usual(facts_of(1, 500)).total < usual(facts_of(64, 500)).total);
}

BOOST_AUTO_TEST_CASE(the_batch_is_on_the_stated_grid) {
  goodput p = usual;
  p.candidates = 7;  // 128 · 2ᵏ
  for (double const phi : {1.0, 100.0, 1e3, 3e3, 1e4, 1e6}) {
    i64 const best = p(facts_of(16, phi)).total;
    BOOST_TEST((best % 128 == 0 && ((best / 128) & (best / 128 - 1)) == 0));
    for (i64 b = 128; b <= 8192; b *= 2) BOOST_TEST(p.at(best, 16, phi) >= p.at(b, 16, phi));
  }
}

BOOST_AUTO_TEST_CASE(bounds_are_kept_and_shares_are_equal) {
  auto p = usual;
  p.max_share = 100;
  auto const plan = p(facts_of(6, infinity));
  BOOST_TEST(plan.total == 600);
  BOOST_TEST(plan.share == std::vector<i64>(6, 100), boost::test_tools::per_element());
  BOOST_TEST(usual(facts_of(500, 0)).total == 500);  // everybody gets a sample
  p.max_share = std::numeric_limits<i64>::max();
  BOOST_TEST(p(facts_of(6, infinity)).total == 8192);
}

BOOST_AUTO_TEST_CASE(nothing_known_of_the_noise_is_the_base_batch) {
  BOOST_TEST(usual({.world = 8}).total == 128);
  BOOST_TEST(usual(facts_of(8, 1e6, 9)).total == 128);
  BOOST_TEST(usual(facts_of(8, 1e6, 10)).total > 128);
}

BOOST_AUTO_TEST_CASE(bad_sizes_are_named_with_their_value) {
  auto const bad = [](auto change, auto... parts) {
    goodput p = usual;
    change(p);
    BOOST_CHECK_EXCEPTION((void)p({.world = 4}), std::invalid_argument, says("goodput", parts...));
  };
  BOOST_CHECK_EXCEPTION((void)usual({.world = 0}), std::invalid_argument, says("goodput: world", "got 0"));
  bad([](goodput& p) { p.base_batch = 0; }, "base_batch", "got 0");
  bad([](goodput& p) { p.max_batch = 127; }, "max_batch", "[128, 2^53], got 127");
  bad([](goodput& p) { p.max_share = 0; }, "max_share", "got 0");
  bad([](goodput& p) { p.max_share = 31; }, "no batch lies between 128", "and 124", "max_share 31");
  bad([](goodput& p) { p.alpha_grad = -1; }, "alpha_grad", "got -1");
  bad([](goodput& p) { p.beta_grad = 0; }, "beta_grad", "got 0");
  bad([](goodput& p) { p.alpha_sync = infinity; }, "alpha_sync", "got inf");
  bad([](goodput& p) { p.beta_sync = -2; }, "beta_sync", "got -2");
  bad([](goodput& p) { p.gamma = 0.5; }, "gamma", "got 0.5");
  bad([](goodput& p) { p.candidates = 1; }, "candidates", "got 1");
  bad([](goodput& p) { p.min_estimates = -3; }, "min_estimates", "got -3");
}

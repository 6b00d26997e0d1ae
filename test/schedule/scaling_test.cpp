// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.schedule.scaling
#include <boost/test/unit_test.hpp>

#include <schedule/every_schedule.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

using namespace limber;
using namespace limber::literals;

namespace {

constexpr double relative = 1e-14;

bool near(double a, double b) { return std::abs(a - b) <= relative * std::abs(b); }

// At `sample` of epochs of 1000, with batch `b` planned long ago.
progress with_batch(double b, i64 sample) {
  return {.steps = 5000, .samples = sample, .epoch_size = 1000, .batch = {.from = b, .to = b}};
}

}  // namespace

BOOST_AUTO_TEST_CASE(without_warmup_the_rate_is_proportional_to_the_batch_or_its_root) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) {
    auto const p = test::random_progress(random);
    double const b = p.batch.at(p.steps);
    BOOST_TEST(near(linear_scaling{.base_lr = 0.1, .base_batch = 256}(p), 0.1 * b / 256));
    BOOST_TEST(near(dynamic_sgd(0.1, 256)(p), 0.1 * b / 256));
    BOOST_TEST(near(sqrt_scaling{.base_lr = 0.1, .base_batch = 256}(p), 0.1 * std::sqrt(b / 256)));
    BOOST_TEST(near(legw{.base_lr = 0.1, .base_batch = 256}(p), 0.1 * std::sqrt(b / 256)));
    BOOST_TEST(no_scaling(0.1)(p) == 0.1);
  }
}

BOOST_AUTO_TEST_CASE(gradual_warmup_rises_linearly_from_the_base_rate_to_the_scaled_one) {
  linear_scaling const linear{.base_lr = 0.1, .base_batch = 256, .warmup = 5_epochs};
  sqrt_scaling const root{.base_lr = 0.1, .base_batch = 256, .warmup = 5_epochs};
  for (double const b : {64.0, 256.0, 8192.0}) {
    for (i64 sample = 0; sample < 8000; sample += 50) {
      double const done = std::min(1.0, static_cast<double>(sample) / 5000), k = b / 256;
      BOOST_TEST(near(linear(with_batch(b, sample)), 0.1 * (1 + (k - 1) * done)));
      BOOST_TEST(near(root(with_batch(b, sample)), 0.1 * (1 + (std::sqrt(k) - 1) * done)));
    }
    BOOST_TEST(linear(with_batch(b, 0)) == 0.1);
    BOOST_TEST(linear(with_batch(b, 5000)) == 0.1 * (b / 256));
  }
}

BOOST_AUTO_TEST_CASE(legw_warms_up_k_times_the_epochs_to_root_k_times_the_rate) {
  legw const s{.base_lr = 0.1, .base_batch = 32, .warmup = 0.5_epochs};
  for (double const k : {1.0, 4.0, 16.0}) {
    for (i64 sample = 0; sample < 20'000; sample += 125) {
      double const t = static_cast<double>(sample) / 1000;
      BOOST_TEST(near(s(with_batch(32 * k, sample)), 0.1 * std::sqrt(k) * std::min(1.0, t / (0.5 * k))));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_resize_in_the_warmup_changes_its_target_only) {
  linear_scaling const s{.base_lr = 0.1, .base_batch = 100, .warmup = 10_epochs};
  double const before = s(with_batch(200, 3000)), after = s(with_batch(800, 3000));
  BOOST_TEST(near(before, 0.1 * (1 + 1 * 0.3)));
  BOOST_TEST(near(after, 0.1 * (1 + 7 * 0.3)));
  BOOST_TEST(std::abs((after - 0.1) / (before - 0.1) - 7) <= 1e-12);
  BOOST_TEST(s(with_batch(800, 10'000)) == 0.1 * 8);
}

BOOST_AUTO_TEST_CASE(adascale_follows_the_papers_gain_in_per_sample_form) {
  adascale const s{.base_lr = 0.1, .base_batch = 32};
  for (double const v : {0.1, 10.0, 1000.0}) {
    for (double const g : {0.0, 0.5, 20.0}) {
      for (double const scale : {1.0, 2.0, 7.5, 64.0}) {
        auto p = with_batch(32 * scale, 0);
        p.noise = {.variance = v, .square = g, .count = 10};
        // The paper: sigma^2 is the variance of one base batch, mu^2 the squared true gradient.
        double const sigma2 = v / 32, gain = (sigma2 + g) / (sigma2 / scale + g);
        BOOST_TEST(near(s(p), 0.1 * gain));
        BOOST_TEST((s(p) >= 0.1 * (1 - relative) && s(p) <= 0.1 * scale * (1 + relative)));
      }
    }
  }
  BOOST_TEST(s(with_batch(320, 0)) == 0.1);  // nothing known yet
  auto smaller = with_batch(8, 0);
  smaller.noise = {.variance = 1, .square = 1, .count = 10};
  BOOST_TEST(s(smaller) == 0.1);
}

BOOST_AUTO_TEST_CASE(dynamic_sgd_is_linear_scaling_by_its_papers_name) {
  static_assert(std::is_same_v<decltype(dynamic_sgd(0.1, 256)), linear_scaling>);
  auto const s = dynamic_sgd(0.1, 256, 5_epochs);
  BOOST_TEST((s.base_lr == 0.1 && s.base_batch == 256 && s.warmup == 5_epochs));
}

BOOST_AUTO_TEST_CASE(scalings_multiply_any_schedule) {
  auto const lr = linear_scaling{.base_lr = 0.1, .base_batch = 256} * (warmup(5_epochs) | cosine(85_epochs));
  static_assert(std::is_trivially_copyable_v<decltype(lr)>);
  auto const p = with_batch(512, 47'500);
  BOOST_TEST(near(lr(p), 0.2 * 0.5));
  BOOST_TEST(near(lr(with_batch(512, 2'500)), 0.2 * 0.5));
}

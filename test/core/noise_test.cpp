// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
#define BOOST_TEST_MODULE limber.core.noise
#include <limber/core/noise.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace limber;

namespace {

// Gradients of n workers: means over b_i samples of G + noise, with tr Σ = 50 and |G|² = 0.533.
struct simulation {
  static constexpr int dimension = 40;
  static constexpr double trace = 50, square = 0.533;
  std::mt19937_64 random;
  std::normal_distribution<double> normal{};

  struct sums {
    double weighted_squares = 0, mean_square = 0, batch = 0;
    std::vector<double> squares{};
  };

  sums draw(std::vector<double> const& b) {
    sums s;
    std::vector<double> mean(dimension);
    for (double const n : b) s.batch += n;
    for (double const n : b) {
      double own = 0;
      for (double& m : mean) {
        double const g = std::sqrt(square / dimension) + std::sqrt(trace / dimension / n) * normal(random);
        own += g * g;
        m += n / s.batch * g;
      }
      s.weighted_squares += n * own;
      s.squares.push_back(own);
    }
    for (double const m : mean) s.mean_square += m * m;
    return s;
  }
};

noise_statistics estimated(std::vector<double> const& b, int draws) {
  simulation world{.random = std::mt19937_64(1)};
  noise_statistics all;
  double const plain_mean = 1 - 1e-12;  // θ so close to 1 that all draws count alike
  for (int i = 0; i < draws; ++i) {
    auto const s = world.draw(b);
    all.update(static_cast<double>(b.size()), s.batch, s.weighted_squares, s.mean_square, plain_mean);
  }
  return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(unequal_batches_give_unbiased_estimates) {
  for (std::vector<double> const& b : {std::vector<double>{3, 5, 9, 15}, {8, 8, 8, 8}, {1, 100}}) {
    auto const s = estimated(b, 20'000);
    // The standard error of V̂ is 50 √(2 / (40 · (n−1) · draws)), of Ĝ about that over B plus that of |ḡ|².
    BOOST_TEST(std::abs(s.variance - 50) < 0.4, "variance " << s.variance);
    BOOST_TEST(std::abs(s.square - 0.533) < 0.015, "square " << s.square);
    BOOST_TEST(s.count == 20'000);
  }
}

BOOST_AUTO_TEST_CASE(equal_batches_reduce_to_mccandlish) {
  simulation world{.random = std::mt19937_64(2)};
  for (int i = 0; i < 100; ++i) {
    auto const s = world.draw({6, 6, 6});
    noise_statistics n;
    n.update(3, s.batch, s.weighted_squares, s.mean_square);
    double const small = (s.squares[0] + s.squares[1] + s.squares[2]) / 3, big = s.mean_square;
    double const square = (18 * big - 6 * small) / (18 - 6), trace = (small - big) / (1.0 / 6 - 1.0 / 18);
    BOOST_TEST_REQUIRE(std::abs(n.variance - trace) < 1e-10 * std::abs(trace));
    BOOST_TEST_REQUIRE(std::abs(n.square - square) < 1e-10 * (std::abs(square) + trace));
  }
}

BOOST_AUTO_TEST_CASE(one_contribution_says_nothing) {
  noise_statistics n;
  n.update(1, 32, 100, 3);
  n.update(0, 0, 0, 0);
  BOOST_TEST(n.count == 0);
  BOOST_TEST(n.variance == 0);
  BOOST_TEST(n.gain(256, 32) == 1);
}

BOOST_AUTO_TEST_CASE(what_is_not_finite_is_not_folded_in) {
  noise_statistics n;
  n.update(2, 8, 100, 3);
  noise_statistics const before = n;
  double const inf = std::numeric_limits<double>::infinity();
  n.update(2, 8, inf, 3);
  n.update(2, 8, 100, std::nan(""));
  n.update(2, 0, 100, 3);
  n.update(std::nan(""), 8, 100, 3);
  BOOST_TEST(n.count == before.count);
  BOOST_TEST(n.variance == before.variance);
  BOOST_TEST(n.square == before.square);
}

BOOST_AUTO_TEST_CASE(smoothing_is_a_plain_mean_first_and_exponential_later) {
  noise_statistics n;
  // n = 2, B = 1, ḡ² = 0: V̂ = Σ b|g|².
  for (int i = 1; i <= 10; ++i) n.update(2, 1, i, 0, 0.9);
  BOOST_TEST(std::abs(n.variance - 5.5) < 1e-12);
  double const before = n.variance;
  n.update(2, 1, 100, 0, 0.9);
  BOOST_TEST(std::abs(n.variance - (0.9 * before + 0.1 * 100)) < 1e-12);
  n.update(2, 1, 7, 0, 0);
  BOOST_TEST(n.variance == 7);  // θ = 0: the last estimate alone
}

BOOST_AUTO_TEST_CASE(the_gain_lies_between_one_and_the_growth) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int i = 0; i < 20'000; ++i) {
    noise_statistics const n{
        .variance = std::pow(10, 12 * uniform(random)) * (uniform(random) < -0.8 ? -1 : 1),
        .square = std::pow(10, 12 * uniform(random)) * (uniform(random) < -0.5 ? -1 : 1),
        .count = 1};
    double const base = 32, batch = 32 * (1 + 100 * std::abs(uniform(random)));
    double const r = n.gain(batch, base);
    BOOST_TEST_REQUIRE(r >= 1);
    BOOST_TEST_REQUIRE(r <= batch / base * (1 + 1e-15));
    BOOST_TEST_REQUIRE(n.gain(batch * 2, base) >= r * (1 - 1e-15));
  }
}

BOOST_AUTO_TEST_CASE(the_gain_at_the_extremes_is_adascales) {
  noise_statistics const noisy{.variance = 1e9, .square = 0, .count = 1};
  noise_statistics const exact{.variance = 0, .square = 1, .count = 1};
  noise_statistics const half{.variance = 32, .square = 1, .count = 1};
  BOOST_TEST(std::abs(noisy.gain(128, 32) - 4) < 1e-12);  // noise only: the batch counts fully
  BOOST_TEST(std::abs(exact.gain(128, 32) - 1) < 1e-12);  // no noise: a larger batch is no use
  BOOST_TEST(std::abs(half.gain(128, 32) - 2 / 1.25) < 1e-12);
  BOOST_TEST(half.gain(32, 32) == 1);
  BOOST_TEST(half.gain(16, 32) == 1);
}

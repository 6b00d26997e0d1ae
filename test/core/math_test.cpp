// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
#define BOOST_TEST_MODULE limber.core.math
#include <limber/core/math.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <tuple>

namespace math = limber::math;

namespace {

using types = std::tuple<float, double>;

template <class T>
T constexpr inf = std::numeric_limits<T>::infinity();
template <class T>
T constexpr not_a_number = std::numeric_limits<T>::quiet_NaN();

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// A random value whose exponent is moderate, so that products stay normal.
template <class T>
T moderate(std::mt19937_64& random) {
  T const m = static_cast<T>(std::uniform_real_distribution<double>(-1, 1)(random));
  return std::ldexp(m, static_cast<int>(random() % 40) - 20);
}

// Through volatile, the compiler has nothing to contract: this is one rounding for each operation.
template <class T>
T separate_mul_add(T a, T b, T c) {
  T volatile product = a * b;
  T volatile sum = product + c;
  return sum;
}
template <class T>
T separate_mul_sub(T a, T b, T c) {
  T volatile product = a * b;
  T volatile difference = product - c;
  return difference;
}

// Not inlined: a scalar call each, as a rule is called. (GCC's vectoriser contracts across the barrier
// when such calls are inlined in a plain loop; the executor's loops are compiled without contraction.)
template <class T>
[[gnu::noinline]] T mul_add(T a, T b, T c) {
  return math::add(math::mul(a, b), c);
}
template <class T>
[[gnu::noinline]] T mul_sub(T a, T b, T c) {
  return math::sub(math::mul(a, b), c);
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_product_that_is_added_is_rounded_twice, T, types) {
  std::mt19937_64 random(1);
  int fused_differs = 0;
  for (int i = 0; i < 50'000; ++i) {
    T const a = moderate<T>(random), b = moderate<T>(random);
    T const c = i % 2 ? moderate<T>(random) : -a * b;  // cancellation shows a fused product best
    BOOST_TEST_REQUIRE(same_bits(mul_add(a, b, c), separate_mul_add(a, b, c)));
    BOOST_TEST_REQUIRE(same_bits(mul_sub(a, b, c), separate_mul_sub(a, b, c)));
    fused_differs += std::fma(a, b, c) != separate_mul_add(a, b, c);
  }
  BOOST_TEST(fused_differs > 10'000);  // else the test could not notice
}

BOOST_AUTO_TEST_CASE_TEMPLATE(fma_is_rounded_once, T, types) {
  T const e = std::numeric_limits<T>::epsilon();
  // (1 + e)² − 1 − 2e = e²: lost when the product is rounded.
  BOOST_TEST(math::fma(1 + e, 1 + e, -(1 + 2 * e)) == e * e);
  BOOST_TEST(mul_add(T(1 + e), T(1 + e), T(-(1 + 2 * e))) == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(division_and_root_are_correctly_rounded, T, types) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 20'000; ++i) {
    T const a = moderate<T>(random), b = moderate<T>(random);
    if (b == 0) continue;
    // The remainder of a correctly rounded result is at most half a spacing; fma computes it exactly.
    T const q = math::div(a, b), up = std::nextafter(q, inf<T>), down = std::nextafter(q, -inf<T>);
    T const off = std::abs(std::fma(-q, b, a));
    BOOST_TEST_REQUIRE(off <= std::abs(std::fma(-up, b, a)));
    BOOST_TEST_REQUIRE(off <= std::abs(std::fma(-down, b, a)));
    T const x = std::abs(a), root = math::sqrt(x);
    T const miss = std::abs(std::fma(-root, root, x));
    BOOST_TEST_REQUIRE(miss <=
                       std::abs(std::fma(-std::nextafter(root, inf<T>), std::nextafter(root, inf<T>), x)));
    T const below = std::nextafter(root, T{0});
    BOOST_TEST_REQUIRE(miss <=
                       std::abs(std::fma(-below, below, x)) * (1 + 8 * std::numeric_limits<T>::epsilon()));
  }
  BOOST_TEST(std::isnan(math::sqrt(T{-1})));
  BOOST_TEST(math::div(T{1}, T{0}) == inf<T>);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(lerp_moves_from_b_to_a, T, types) {
  BOOST_TEST(math::lerp(T{3}, T{7}, T{0}) == 3);
  BOOST_TEST(math::lerp(T{3}, T{7}, T{1}) == 7);
  BOOST_TEST(math::lerp(T{3}, T{7}, T{0.25}) == 4);
  T const b = T{1} / 10, a = T{7} / 10, beta = T{9} / 10;
  BOOST_TEST(same_bits(math::lerp(b, a, beta), std::fma(beta, a - b, b)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(finite_looks_at_exponents, T, types) {
  using limits = std::numeric_limits<T>;
  for (T const x : {T{0}, -T{0}, limits::denorm_min(), limits::min(), limits::max(), limits::lowest()})
    BOOST_TEST(math::finite(x));
  for (T const x : {inf<T>, -inf<T>, not_a_number<T>, -not_a_number<T>, limits::signaling_NaN()})
    BOOST_TEST(!math::finite(x));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(magnitudes_are_ordered_as_absolute_values, T, types) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 10'000; ++i) {
    T const a = moderate<T>(random), b = moderate<T>(random);
    BOOST_TEST_REQUIRE((math::magnitude_bits(a) < math::magnitude_bits(b)) == (std::abs(a) < std::abs(b)));
  }
  BOOST_TEST(math::magnitude_bits(-T{0}) == 0u);
  BOOST_TEST(math::magnitude_bits(not_a_number<T>) > math::magnitude_bits(inf<T>));
  BOOST_TEST(math::magnitude_bits(inf<T>) > math::magnitude_bits(std::numeric_limits<T>::max()));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(abs_and_copysign_touch_only_the_sign, T, types) {
  for (T const x : {T{0}, T{1.5}, std::numeric_limits<T>::denorm_min(), inf<T>, not_a_number<T>}) {
    BOOST_TEST(same_bits(math::abs(x), x));
    BOOST_TEST(same_bits(math::abs(-x), x));
    BOOST_TEST(same_bits(math::copysign(x, T{-2}), -x));
    BOOST_TEST(same_bits(math::copysign(-x, T{2}), x));
    BOOST_TEST(same_bits(math::copysign(x, -T{0}), -x));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(max_min_and_clamp_prefer_their_first_argument, T, types) {
  BOOST_TEST(math::max(T{1}, T{2}) == 2);
  BOOST_TEST(math::max(T{2}, T{1}) == 2);
  BOOST_TEST(math::min(T{1}, T{2}) == 1);
  BOOST_TEST(math::min(T{2}, T{1}) == 1);
  BOOST_TEST(std::signbit(math::max(-T{0}, T{0})));
  BOOST_TEST(!std::signbit(math::min(T{0}, -T{0})));
  BOOST_TEST(std::isnan(math::max(not_a_number<T>, T{1})));
  BOOST_TEST(math::max(T{1}, not_a_number<T>) == 1);
  BOOST_TEST(math::clamp(T{-3}, T{0}, T{5}) == 0);
  BOOST_TEST(math::clamp(T{3}, T{0}, T{5}) == 3);
  BOOST_TEST(math::clamp(inf<T>, T{0}, T{5}) == 5);
  BOOST_TEST(std::isnan(math::clamp(not_a_number<T>, T{0}, T{5})));  // a NaN is not hidden
  static_assert(math::clamp(T{7}, T{0}, T{5}) == 5);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(powers_of_two_are_exact, T, types) {
  using limits = std::numeric_limits<T>;
  for (int e = limits::min_exponent - 1; e < limits::max_exponent; ++e)
    BOOST_TEST_REQUIRE(math::power_of_two<T>(e) == std::ldexp(T{1}, e));
}

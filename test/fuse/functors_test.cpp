// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
#define BOOST_TEST_MODULE limber.fuse.functors
#include <limber/fuse/functors.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <tuple>
#include <type_traits>
#include <vector>

using namespace limber;
using types = std::tuple<float, double>;

namespace {

template <class T>
constexpr T not_a_number = std::numeric_limits<T>::quiet_NaN();

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// Weights of every magnitude that a float has, and some that only a double has.
std::vector<double> weights() {
  std::vector<double> w{0.0, -0.0, 1, -1, 0.1, 1.0 / 3, 0x1p-149, 1e-39, 1e-300, 16777217};
  std::mt19937_64 random(11);
  for (int i = 0; i < 2'000; ++i) {
    double const mantissa = 1 + static_cast<double>(random() >> 12) * 0x1p-52;
    w.push_back(std::ldexp(i % 2 == 0 ? mantissa : -mantissa, static_cast<int>(random() % 240) - 120));
  }
  return w;
}

template <class T>
std::vector<T> values() {
  std::vector<T> x{0, -T(0), 1, T(-2.5), T(1e-30), T(3e9), std::numeric_limits<T>::denorm_min()};
  std::mt19937 random(5);
  for (int i = 0; i < 20; ++i) x.push_back(static_cast<T>(std::normal_distribution<double>()(random)));
  return x;
}

}  // namespace

static_assert(std::is_trivially_copyable_v<scalar> && std::is_trivially_copyable_v<pack> &&
              std::is_trivially_copyable_v<step_back> && std::is_trivially_copyable_v<blend> &&
              std::is_trivially_copyable_v<difference> && std::is_trivially_copyable_v<weighted> &&
              std::is_trivially_copyable_v<scaled_copy> && std::is_trivially_copyable_v<pack_with_error>);

BOOST_AUTO_TEST_CASE_TEMPLATE(a_scalar_is_the_double_rounded_to_either_type, T, types) {
  for (double const w : weights()) BOOST_TEST_REQUIRE(same_bits(scalar(w).as<T>(), static_cast<T>(w)));
}

// The formulas typed again, with the weight rounded from double where it is used.
BOOST_AUTO_TEST_CASE_TEMPLATE(weights_are_rounded_once_and_every_operation_too, T, types) {
  for (double const w : weights()) {
    auto const r = static_cast<T>(w);
    for (T const x : values<T>()) {
      for (T const y : {T(0.75), T(-1e-7)}) {
        T a = not_a_number<T>;
        scaled_copy{w}(a, x);
        BOOST_TEST_REQUIRE(same_bits(a, r * x));
        step_back{w}(a, y, x);
        BOOST_TEST_REQUIRE(same_bits(a, std::fma(static_cast<T>(-w), x, y)));
        if (r == 0) continue;
        BOOST_TEST_REQUIRE(same_bits(weighted{w}(a, x), r * x));
        BOOST_TEST_REQUIRE(same_bits(a, r * x));
        T const gap = y - x;
        BOOST_TEST_REQUIRE(same_bits(difference{w}(a, y, x), r * gap));
        BOOST_TEST_REQUIRE(same_bits(a, r * gap));
        T g = x, sum = y;
        BOOST_TEST_REQUIRE(same_bits(pack{w, true}(sum, g), x));
        BOOST_TEST_REQUIRE(same_bits(sum, std::fma(r, x, y)));
        BOOST_TEST_REQUIRE(same_bits(g, T(0)));
        g = x, sum = not_a_number<T>;
        BOOST_TEST_REQUIRE(same_bits(pack{w}(sum, g), x));
        BOOST_TEST_REQUIRE(same_bits(sum, r * x));
        a = y;
        blend{w}(a, x);
        T const way = x - y;
        BOOST_TEST_REQUIRE(same_bits(a, std::fma(r, way, y)));
      }
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_weight_of_zero_looks_at_nothing, T, types) {
  for (double const w : {0.0, -0.0}) {
    T a = 7, g = not_a_number<T>;
    BOOST_TEST(same_bits(pack{w, true}(a, g), T(0)));
    BOOST_TEST(a == T(7));
    BOOST_TEST(same_bits(g, T(0)));
    g = not_a_number<T>;
    BOOST_TEST(same_bits(pack{w, false}(a, g), T(0)));
    BOOST_TEST(same_bits(a, T(0)));
    a = 7;
    blend{w}(a, not_a_number<T>);
    BOOST_TEST(a == T(7));
    BOOST_TEST(same_bits(weighted{w}(a, not_a_number<T>), T(0)));
    BOOST_TEST(same_bits(difference{w}(a, not_a_number<T>, not_a_number<T>), T(0)));
    BOOST_TEST(same_bits(a, T(0)));
  }
}

BOOST_AUTO_TEST_CASE(a_subnormal_weight_is_a_weight) {
  float sum = 0, g = 0x1p100f, a = 0;
  BOOST_TEST(pack{0x1p-140}(sum, g) == 0x1p100f);
  BOOST_TEST(sum == 0x1p-40f);
  BOOST_TEST(weighted{0x1p-140}(a, 0x1p100f) == 0x1p-40f);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(blending_stays_where_both_are_equal_and_goes_all_the_way_with_1, T, types) {
  for (T const x : values<T>()) {
    for (double const alpha : {0.0, 0.1, 0.5, 1.0}) {
      T a = x;
      blend{alpha}(a, x);
      BOOST_TEST(a == x);
    }
    T a = x;
    blend{1}(a, 2 * x);  // the difference is exact
    BOOST_TEST(a == 2 * x);
  }
  // EASGD: worker and centre move towards each other, and their mean stays.
  T worker = 3, centre = 1;
  T const before = worker;
  blend{0.25}(worker, centre);
  blend{0.25}(centre, before);
  BOOST_TEST(worker == T(2.5));
  BOOST_TEST(centre == T(1.5));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_plain_ones_do_what_they_are_called, T, types) {
  T a = 3;
  accumulate{}(a, T(0.5));
  BOOST_TEST(a == T(3.5));
  BOOST_TEST(identity{}(a) == T(3.5));
  T b = 0;
  copy{}(b, a);
  BOOST_TEST(b == T(3.5));
  zero{}(b);
  BOOST_TEST(same_bits(b, T(0)));
  {
    T g = 2;
    pack{2.0, true}(b, a, g);  // the sum so far, into another list
    BOOST_TEST(g == T(0));
  }
  BOOST_TEST(b == T(7.5));
  scaled_copy{}(b, T(-4));
  BOOST_TEST(b == T(-4));
  step_back{}(b, T(5), T(2));
  BOOST_TEST(b == T(3));
}

namespace {

template <class T>
T through(dtype wire, T x) {
  if (sizeof(T) == sizeof(double)) return x;
  float const f = static_cast<float>(x);
  return static_cast<T>(wire == dtype::bf16 ? static_cast<float>(bf16(f)) : static_cast<float>(f16(f)));
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_journey_in_16_bits_rounds_as_storage_does, T, types) {
  for (T const x : values<T>())
    for (dtype const wire : {dtype::bf16, dtype::f16})
      BOOST_TEST(same_bits(cast_to(wire, x), through(wire, x)));
  BOOST_TEST(cast_to(dtype::bf16, 1 + 0x1p-8f) == 1);
  BOOST_TEST(cast_to(dtype::f16, 1 + 0x1p-8f) == 1 + 0x1p-8f);
  BOOST_TEST(cast_to(dtype::bf16, 1 + 0x1p-8) == 1 + 0x1p-8);
  BOOST_TEST(cast_to(dtype::f32, 1 + 0x1p-20f) == 1 + 0x1p-20f);
}

// What is sent and what is owed are x together, without a rounding.
BOOST_AUTO_TEST_CASE_TEMPLATE(an_error_is_what_was_not_sent, T, types) {
  T const e = T(3e-4);
  for (double const w : weights())
    for (T const x : values<T>())
      for (dtype const wire : {dtype::bf16, dtype::f16})
        for (bool const carry : {false, true}) {
          auto const r = static_cast<T>(w);
          T const base = carry ? T(0.7) + e : e;
          T const all = r == 0 ? base : std::fma(r, x, base);
          T to = not_a_number<T>, owed = carry ? T(0.7) : not_a_number<T>, g = x;
          BOOST_TEST_REQUIRE(same_bits(pack_with_error{w, carry, wire}(to, owed, e, g), r == 0 ? T(0) : x));
          BOOST_TEST_REQUIRE(same_bits(g, T(0)));
          BOOST_TEST_REQUIRE(same_bits(to, through(wire, all)));
          if (!std::isfinite(to)) {
            BOOST_TEST_REQUIRE(!std::isfinite(owed));
            continue;
          }
          BOOST_TEST_REQUIRE(same_bits(to + owed, all));
          // Exact, not just right after another rounding.
          BOOST_TEST_REQUIRE(static_cast<double>(to) + static_cast<double>(owed) == static_cast<double>(all));
        }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(without_a_gradient_the_rest_is_sent, T, types) {
  T const e = T(1e-3);
  T to = 0, owed = 5, again = 0, g = not_a_number<T>, sum = 5;
  pack_with_error{0, true, dtype::bf16}(to, owed, e);
  BOOST_TEST(same_bits(to, through(dtype::bf16, T(5) + e)));
  BOOST_TEST(same_bits(to + owed, T(5) + e));
  BOOST_TEST(pack_with_error({0, true, dtype::bf16})(again, sum, e, g) == T(0));
  BOOST_TEST(same_bits(again, to));
  BOOST_TEST(same_bits(sum, owed));
}

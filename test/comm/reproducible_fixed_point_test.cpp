// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// optimize: 1
#define BOOST_TEST_MODULE limber.comm.reproducible_fixed_point
#include <limber/comm/detail/reproducible_codec.hpp>
#include <limber/core/fixed_point.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

using namespace limber;
namespace fp = limber::fixed_point;

static_assert(std::numeric_limits<long double>::digits >= 64, "the oracle counts on it");

namespace {

using types = std::tuple<float, bf16, f16>;

template <class T>
T of_bits(fp::word<T> bits) {
  return std::bit_cast<T>(bits);
}
template <class T>
long double number(fp::word<T> bits) {
  return static_cast<float>(of_bits<T>(bits));
}
template <class T>
constexpr std::uint32_t sign = 1u << (8 * sizeof(fp::word<T>) - 1);

// Any finite bits: denormals, zeros and the largest included.
template <class T>
fp::word<T> finite_bits(std::mt19937_64& random) {
  auto const z = random();
  std::uint32_t magnitude = static_cast<std::uint32_t>(z) % fp::infinity<T>;
  if (z >> 60 == 0) magnitude = static_cast<std::uint32_t>(z >> 32) % 4;
  if (z >> 60 == 1) magnitude = fp::infinity<T> - 1 - static_cast<std::uint32_t>(z >> 32) % 4;
  if (z >> 60 == 2) magnitude = magnitude >> fp::format<T>::fraction << fp::format<T>::fraction;
  return static_cast<fp::word<T>>(magnitude | ((z >> 59 & 1) != 0 ? sign<T> : 0));
}

}  // namespace

// By the definition, without bit operations.
BOOST_AUTO_TEST_CASE_TEMPLATE(the_exponent_is_that_of_the_value_as_a_float, T, types) {
  std::mt19937_64 random(1);
  for (int k = 0; k < 20'000; ++k) {
    std::uint32_t const magnitude = finite_bits<T>(random) & (sign<T> - 1);
    float const x = static_cast<float>(of_bits<T>(static_cast<fp::word<T>>(magnitude)));
    int exponent = 0;
    (void)std::frexp(x, &exponent);  // x in [½, 1) × 2^exponent
    int const lowest = 128 - fp::format<T>::bias;
    BOOST_REQUIRE_EQUAL(fp::exponent_of<T>(magnitude), x == 0 ? lowest : std::max(lowest, exponent + 126));
  }
  BOOST_TEST(fp::exponent_of<T>(fp::infinity<T>) == 255);
  BOOST_TEST(fp::exponent_of<T>(fp::infinity<T> + 1) == 255);
  BOOST_TEST(fp::exponent_of<T>(sign<T> - 1) == 255);
  BOOST_TEST(std::isnan(number<T>(fp::nan<T>)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(encoding_rounds_to_nearest_even, T, types) {
  std::mt19937_64 random(2);
  for (int k = 0; k < 200'000; ++k) {
    auto const x = finite_bits<T>(random);
    int const own = fp::exponent_of<T>(x & (sign<T> - 1)), guard = 1 + static_cast<int>(random() % 31);
    int const block = std::min(254, own + static_cast<int>(random() % 80));
    int const unit = fp::unit_of(block, guard);
    // Exact: x has at most 24 bits, and long double 64.
    i64 const expected = static_cast<i64>(std::nearbyintl(std::ldexp(number<T>(x), -unit)));
    BOOST_REQUIRE_EQUAL(fp::encode<T>(x, unit), expected);
    BOOST_REQUIRE(std::abs(expected) <= (i64{1} << (63 - guard)));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_most_contributions_fit, T, types) {
  auto const largest = static_cast<fp::word<T>>(fp::infinity<T> - 1);
  for (int guard = 1; guard <= 31; ++guard) {
    int const unit = fp::unit_of(fp::exponent_of<T>(largest), guard);
    i64 const one = fp::encode<T>(largest, unit);
    BOOST_TEST(one <= std::numeric_limits<i64>::max() >> guard);
    BOOST_TEST(one > std::numeric_limits<i64>::max() >> (guard + 1));
  }
}

// The definition: of the neighbours the nearer one, at a tie the even one; half a unit beyond the largest
// it is an infinity.
BOOST_AUTO_TEST_CASE_TEMPLATE(decoding_rounds_once_to_nearest_even, T, types) {
  std::mt19937_64 random(3);
  auto const largest = static_cast<fp::word<T>>(fp::infinity<T> - 1);
  long double const beyond =
      number<T>(largest) + (number<T>(largest) - number<T>(static_cast<fp::word<T>>(largest - 1))) / 2;
  for (int k = 0; k < 200'000; ++k) {
    i64 value = static_cast<i64>(random()) >> (random() % 64);
    int unit = fp::unit_of(static_cast<int>(random() % 255), 1 + static_cast<int>(random() % 31));
    if (k % 4 == 0) {
      // Halfway between two neighbours, or beside that.
      std::uint32_t const low = finite_bits<T>(random) & (sign<T> - 1);
      auto const next = static_cast<fp::word<T>>(low + 1);
      if (next >= fp::infinity<T>) continue;
      long double const middle = (number<T>(static_cast<fp::word<T>>(low)) + number<T>(next)) / 2;
      int exponent = 0;
      (void)std::frexp(middle, &exponent);
      unit = exponent - 40;
      value = static_cast<i64>(std::ldexp(middle, -unit)) + static_cast<i64>(random() % 3) - 1;
    }
    long double const exact = std::ldexp(static_cast<long double>(value), unit), size = std::fabs(exact);
    fp::word<T> const got = fp::decode<T>(value, unit);
    BOOST_REQUIRE_EQUAL((got & sign<T>) != 0, value < 0);
    auto const magnitude = static_cast<fp::word<T>>(got & (sign<T> - 1));
    if (size >= beyond) {
      BOOST_REQUIRE_EQUAL(magnitude, fp::infinity<T>);
      continue;
    }
    BOOST_REQUIRE(magnitude < fp::infinity<T>);
    long double const off = std::fabs(number<T>(magnitude) - size);
    for (int const step : {-1, 1}) {
      if ((magnitude == 0 && step < 0) || (magnitude == largest && step > 0)) continue;
      long double const other =
          std::fabs(number<T>(static_cast<fp::word<T>>(magnitude + static_cast<fp::word<T>>(step))) - size);
      BOOST_REQUIRE(off <= other);
      if (off == other) BOOST_REQUIRE_EQUAL(magnitude % 2, 0);
    }
  }
  BOOST_TEST(fp::decode<T>(0, -100) == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(what_was_encoded_alone_comes_back, T, types) {
  std::mt19937_64 random(4);
  for (int k = 0; k < 20'000; ++k) {
    auto const x = finite_bits<T>(random);
    int const own = fp::exponent_of<T>(x & (sign<T> - 1));
    // 24 bits of 53 that there are at 10 guard bits: 29 binades above its own still hold it.
    int const unit = fp::unit_of(std::min(254, own + static_cast<int>(random() % 30)), 10);
    auto const back = fp::decode<T>(fp::encode<T>(x, unit), unit);
    BOOST_REQUIRE_EQUAL(back, x == sign<T> ? 0 : x);
  }
}

// The vectorized and plain loops, and the fast path of floats, against the reference function.
BOOST_AUTO_TEST_CASE_TEMPLATE(all_loops_give_the_same_bits, T, types) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 600; ++round) {
    i64 const n = static_cast<i64>(random() % 257);
    std::vector<fp::word<T>> x, back(static_cast<std::size_t>(n)), plain_back(back);
    for (i64 i = 0; i < n; ++i) x.push_back(finite_bits<T>(random));
    std::uint32_t most = 0;
    for (auto const b : x) most = std::max<std::uint32_t>(most, b & (sign<T> - 1));
    BOOST_REQUIRE_EQUAL(detail::run_codec([&] { return detail::largest_plain<T>(x.data(), n); }), most);
    BOOST_REQUIRE_EQUAL(detail::largest_plain<T>(x.data(), n), most);
    int const unit = fp::unit_of(fp::exponent_of<T>(most), 1 + static_cast<int>(random() % 31));
    std::vector<i64> fixed(x.size()), plain(x.size());
    detail::run_codec([&] { detail::encode_plain<T>(x.data(), fixed.data(), n, unit); });
    detail::encode_plain<T>(x.data(), plain.data(), n, unit);
    BOOST_REQUIRE(fixed == plain);
    for (std::size_t i = 0; i < x.size(); ++i) BOOST_REQUIRE_EQUAL(fixed[i], fp::encode<T>(x[i], unit));
    // Sums and units of the full range.
    int const any = round % 2 == 0 ? unit : static_cast<int>(random() % 260) - 190;
    for (auto& f : fixed) f = static_cast<i64>(random()) >> (random() % 64);
    detail::run_codec([&] { detail::decode_plain<T>(fixed.data(), back.data(), n, any); });
    detail::decode_plain<T>(fixed.data(), plain_back.data(), n, any);
    BOOST_REQUIRE(back == plain_back);
    for (std::size_t i = 0; i < x.size(); ++i) BOOST_REQUIRE_EQUAL(back[i], fp::decode<T>(fixed[i], any));
  }
}

BOOST_AUTO_TEST_CASE(blocks_start_where_tensors_start) {
  std::vector<piece> const pieces{{0, 256}, {260, 1}, {264, 0}, {300, 700}};
  BOOST_TEST(detail::blocks_of(pieces) == 1 + 1 + 0 + 3);
  BOOST_TEST(detail::elements_of(pieces) == 957);
  std::vector<std::tuple<i64, i64, i64, i64>> seen;
  detail::for_each_exponent(
      pieces, [&](i64 block, i64 from, i64 run, i64 n) { seen.emplace_back(block, from, run, n); });
  std::vector<std::tuple<i64, i64, i64, i64>> const expected{
      {0, 0, 0, 256}, {1, 260, 256, 1}, {2, 300, 257, 256}, {3, 556, 513, 256}, {4, 812, 769, 188}};
  BOOST_TEST((seen == expected));
}

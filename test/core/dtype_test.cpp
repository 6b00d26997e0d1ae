// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
// optimize: 1
#define BOOST_TEST_MODULE limber.core.dtype
#include <limber/core/dtype.hpp>
#include <limber/core/random.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

using namespace limber;
using limber::test::says;

namespace {

// 32 random bits, as a type of 32 bits.
class generator {
 public:
  explicit generator(unsigned seed) : engine_(seed) {}
  std::uint32_t operator()() { return static_cast<std::uint32_t>(engine_()); }

 private:
  std::mt19937 engine_;
};

float constexpr inf = std::numeric_limits<float>::infinity();

float bits(std::uint32_t u) { return detail::from_bits(u); }

// One 16-bit format, described by its numbers alone.
template <class T>
struct format;
template <>
struct format<bf16> {
  static constexpr int digits = 8, lowest = -126;
  static constexpr double largest = 0x1.fep127;
};
template <>
struct format<f16> {
  static constexpr int digits = 11, lowest = -14;
  static constexpr double largest = 65504;
};

// The distance of neighbouring values around x.
template <class T>
double spacing(double x) {
  int e = std::ilogb(x);
  if (x == 0 || e < format<T>::lowest) e = format<T>::lowest;
  return std::ldexp(1.0, e - format<T>::digits + 1);
}

// To nearest even, in double: a float divided by a power of two is exact there.
template <class T>
double nearest(float x) {
  if (std::isinf(x)) return x;
  double const unit = spacing<T>(x), rounded = std::nearbyint(x / unit) * unit;
  return std::abs(rounded) > format<T>::largest ? std::copysign(HUGE_VAL, rounded) : rounded;
}

// Random floats of every exponent, and the neighbourhood of every boundary of T.
template <class T>
std::vector<float> inputs() {
  std::vector<float> x{0.0f,     -0.0f,    inf,   -inf,          65504.0f, 65519.996f,
                       65520.0f, 65535.0f, 1e38f, 3.4028235e38f, 1e-45f};
  generator random(7);
  for (int i = 0; i < 400'000; ++i) x.push_back(bits(random()));
  for (std::uint32_t u = 0; u < 65'536; u += 3) {
    T t;
    t.bits = static_cast<std::uint16_t>(u);
    float const here = static_cast<float>(t);
    t.bits = static_cast<std::uint16_t>(u + 1);
    float const next = static_cast<float>(t);
    float const middle = static_cast<float>((static_cast<double>(here) + next) / 2);
    for (float const v : {here, middle, std::nextafter(middle, -inf), std::nextafter(middle, inf)})
      x.push_back(v);
  }
  std::erase_if(x, [](float v) { return std::isnan(v); });
  return x;
}

template <class T>
void check_all_values_round_trip() {
  for (std::uint32_t u = 0; u < 65'536; ++u) {
    T t;
    t.bits = static_cast<std::uint16_t>(u);
    float const x = static_cast<float>(t);
    T const back(x), drawn(x, 0xffff);
    if (std::isnan(x)) {
      // A signalling NaN becomes quiet; sign and payload stay.
      std::uint32_t const quiet = std::is_same_v<T, bf16> ? 0x40u : 0x200u;
      BOOST_TEST_REQUIRE(back.bits == (u | quiet));
      BOOST_TEST_REQUIRE(drawn.bits == (u | quiet));
    } else {
      BOOST_TEST_REQUIRE(back.bits == u);
      BOOST_TEST_REQUIRE(drawn.bits == u);  // exact values have nothing to round
    }
  }
}

template <class T>
void check_rounding_to_nearest() {
  for (float const x : inputs<T>()) {
    float const y = static_cast<float>(T(x));
    BOOST_TEST_REQUIRE(y == nearest<T>(x), "for " << std::hexfloat << x);
    BOOST_TEST_REQUIRE(std::signbit(y) == std::signbit(x));
  }
}

template <class T>
void check_stochastic_neighbours() {
  generator random(9);
  for (float const x : inputs<T>()) {
    std::uint32_t const r = random();
    float const y = static_cast<float>(T(x, r));
    BOOST_TEST_REQUIRE(!std::isnan(y), "for " << std::hexfloat << x);
    BOOST_TEST_REQUIRE(std::signbit(y) == std::signbit(x));
    if (!std::isfinite(y)) {
      BOOST_TEST_REQUIRE(std::abs(static_cast<double>(x)) > format<T>::largest);
    } else {
      BOOST_TEST_REQUIRE(std::abs(static_cast<double>(y) - x) < spacing<T>(x), "for " << std::hexfloat << x);
    }
    if (std::abs(static_cast<double>(x)) < format<T>::largest + spacing<T>(format<T>::largest))
      BOOST_TEST_REQUIRE(std::abs(static_cast<float>(T(x, 0))) <= std::abs(x));  // random 0 cuts off
    BOOST_TEST_REQUIRE(T(x, r).bits == T(x, r | 0xabcd'0000u).bits);             // 16 bits count, no more
  }
}

// The mean over all 65,536 random numbers, which is what "unbiased" means here.
template <class T>
void check_mean(float x, double tolerance_in_spacings) {
  double sum = 0;
  for (std::uint32_t r = 0; r < 65'536; ++r) sum += static_cast<float>(T(x, r));
  BOOST_TEST(std::abs(sum / 65'536 - x) <= tolerance_in_spacings * spacing<T>(x),
             "for " << std::hexfloat << x);
}

}  // namespace

BOOST_AUTO_TEST_CASE(all_65536_values_of_both_formats_round_trip) {
  check_all_values_round_trip<bf16>();
  check_all_values_round_trip<f16>();
}

BOOST_AUTO_TEST_CASE(rounding_is_to_nearest_even_everywhere) {
  check_rounding_to_nearest<bf16>();
  check_rounding_to_nearest<f16>();
}

BOOST_AUTO_TEST_CASE(the_edges_of_f16_are_those_of_the_hardware) {
  BOOST_TEST(f16(65519.996f).bits == 0x7bff);
  BOOST_TEST(f16(65520.0f).bits == 0x7c00);
  BOOST_TEST(f16(-65520.0f).bits == 0xfc00);
  BOOST_TEST(f16(0x1p-24f).bits == 1);
  BOOST_TEST(f16(0x1p-25f).bits == 0);  // half of it: to even
  BOOST_TEST(f16(0x1.000002p-25f).bits == 1);
  BOOST_TEST(f16(-0x1.8p-24f).bits == 0x8002);  // one and a half: to even
  BOOST_TEST(f16(0x1.ff8p-15f).bits == 0x03ff);
  BOOST_TEST(f16(0x1.ffcp-15f).bits == 0x0400);  // a tie: the largest subnormal or the first normal number
  BOOST_TEST(bf16(257.0f).bits == bf16(256.0f).bits);
}

#if defined(__FLT16_MANT_DIG__)
BOOST_AUTO_TEST_CASE(f16_agrees_with_the_compilers_half) {
  for (float const x : inputs<f16>()) {
    auto const half = static_cast<_Float16>(x);
    std::uint16_t u;
    std::memcpy(&u, &half, sizeof u);
    BOOST_TEST_REQUIRE(f16(x).bits == u, "for " << std::hexfloat << x);
  }
}
#endif

BOOST_AUTO_TEST_CASE(nans_stay_nans_whatever_their_payload) {
  generator random(3);
  for (int i = 0; i < 10'000; ++i) {
    std::uint32_t const payload = i < 23 ? 1u << i : (random() & 0x7f'ffffu) | 1u;
    for (std::uint32_t const sign : {0u, 0x8000'0000u}) {
      float const nan = bits(sign | 0x7f80'0000u | payload);
      BOOST_TEST_REQUIRE(std::isnan(static_cast<float>(bf16(nan))));
      BOOST_TEST_REQUIRE(std::isnan(static_cast<float>(f16(nan))));
      BOOST_TEST_REQUIRE(std::isnan(static_cast<float>(bf16(nan, random()))));
      BOOST_TEST_REQUIRE(std::isnan(static_cast<float>(f16(nan, random()))));
      BOOST_TEST_REQUIRE((bf16(nan).bits >> 15) == (sign >> 31));
      BOOST_TEST_REQUIRE((f16(nan).bits >> 15) == (sign >> 31));
    }
  }
}

BOOST_AUTO_TEST_CASE(stochastic_rounding_goes_to_a_neighbour_and_never_to_nan) {
  check_stochastic_neighbours<bf16>();
  check_stochastic_neighbours<f16>();
}

BOOST_AUTO_TEST_CASE(stochastic_rounding_is_unbiased) {
  for (float const x : {1.0000001f, -1.004f, 3.14159f, 257.0f, 1e-30f, -6e4f, 0.1f}) {
    check_mean<bf16>(x, 0);  // exactly: all cut bits take part
    if (std::abs(x) > 1e-20f) check_mean<f16>(x, 0);
  }
  // Subnormal results of f16 lose more than 16 bits; 16 random bits leave 2⁻¹⁶ of a spacing.
  for (float const x : {5e-8f, -3.3e-6f, 0x1.234566p-20f, 6.0e-5f, 1e-9f, 0x1p-30f})
    check_mean<f16>(x, 0x1p-16);
}

BOOST_AUTO_TEST_CASE(the_smallest_value_that_can_be_rounded_up_to_a_subnormal_half_is_2_to_minus_40) {
  BOOST_TEST(f16(0x1p-40f, 0xffff).bits == 1);
  BOOST_TEST(f16(-0x1p-40f, 0xffff).bits == 0x8001);
  BOOST_TEST(f16(0x1p-40f, 0xfffe).bits == 0);
  BOOST_TEST(f16(0x1.fffffep-41f, 0xffff).bits == 0);
  BOOST_TEST(f16(1e-45f, 0xffff).bits == 0);
}

BOOST_AUTO_TEST_CASE(a_weight_can_grow_by_less_than_half_a_spacing) {
  // What stochastic rounding is for: 10,000 updates of 1/1,000 of a spacing, lost when rounding to nearest.
  bf16 drawn(1.0f), rounded(1.0f);
  float const small = 0x1p-7f / 1000;
  rounding const source{.stochastic = true, .seed = 5, .step = 1};
  for (i64 i = 0; i < 10'000; ++i) {
    drawn = bf16(static_cast<float>(drawn) + small, source.bits(i));
    rounded = bf16(static_cast<float>(rounded) + small);
  }
  BOOST_TEST(static_cast<float>(rounded) == 1.0f);
  BOOST_TEST(std::abs(static_cast<float>(drawn) - (1 + 10 * 0x1p-7f)) < 10 * 0x1p-7f);
  BOOST_TEST(static_cast<float>(drawn) > 1.0f);
}

BOOST_AUTO_TEST_CASE(every_dtype_knows_size_name_and_arithmetic) {
  struct row {
    dtype type;
    i64 bytes;
    std::string_view name;
    bool floating;
    dtype computes_in;
  };
  for (row const& r :
       {row{dtype::f32, 4, "f32", true, dtype::f32}, row{dtype::f64, 8, "f64", true, dtype::f64},
        row{dtype::bf16, 2, "bf16", true, dtype::f32}, row{dtype::f16, 2, "f16", true, dtype::f32},
        row{dtype::int64, 8, "int64", false, dtype::int64},
        row{dtype::uint8, 1, "uint8", false, dtype::uint8}}) {
    BOOST_TEST(size_of(r.type) == r.bytes);
    BOOST_TEST(name_of(r.type) == r.name);
    BOOST_TEST(is_floating(r.type) == r.floating);
    BOOST_TEST((compute_type(r.type) == r.computes_in));
    auto const same = with_type(
        r.type, [&]<class T>() { return dtype_of<T> == r.type && static_cast<i64>(sizeof(T)) == r.bytes; });
    BOOST_TEST(same);
  }
  static_assert(!has_dtype<int> && !has_dtype<float const>);
  BOOST_CHECK_EXCEPTION(with_type(static_cast<dtype>(99), []<class T>() {}), std::invalid_argument,
                        says("dtype"));
}

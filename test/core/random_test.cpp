// SPDX-License-Identifier: Apache-2.0
// labels: unit memory
#define BOOST_TEST_MODULE limber.core.random
#include <limber/core/random.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdlib>
#include <set>

using namespace limber;

namespace {

bool equal(words4 a, words4 b) { return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w; }

}  // namespace

BOOST_AUTO_TEST_CASE(philox_gives_the_published_known_answers) {
  BOOST_TEST(equal(philox({0, 0, 0, 0}, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  std::uint32_t const ones = 0xffff'ffff;
  BOOST_TEST(equal(philox({ones, ones, ones, ones}, ~std::uint64_t{0}),
                   {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  // Digits of π. The first word of the key is its low half.
  BOOST_TEST(equal(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f'31d0'a409'3822),
                   {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

BOOST_AUTO_TEST_CASE(seed_stream_and_index_all_count_in_both_halves) {
  std::set<std::uint64_t> seen;
  for (int const bit : {0, 1, 31, 32, 33, 63}) {
    std::uint64_t const one = std::uint64_t{1} << bit;
    seen.insert(random_bits(one, 0, 0));
    seen.insert(random_bits(0, one, 0));
    seen.insert(random_bits(0, 0, one));
  }
  BOOST_TEST(seen.size() == 18u);
  BOOST_TEST(random_bits(0, 0, 0) == 0x6627'e8d5'e169'c58dull);
}

BOOST_AUTO_TEST_CASE(bits_of_neighbouring_indices_are_balanced) {
  // 64 bits × 20,000 draws: every bit is set in half of them, and differs from its predecessor in half.
  int const draws = 20'000;
  double const limit = 5 * std::sqrt(draws / 4.0);
  for (int bit = 0; bit < 64; ++bit) {
    int set = 0, changed = 0;
    std::uint64_t before = 0;
    for (int i = 0; i < draws; ++i) {
      std::uint64_t const r = random_bits(1, 2, static_cast<std::uint64_t>(i)) >> bit & 1;
      set += static_cast<int>(r);
      changed += static_cast<int>(r ^ before);
      before = r;
    }
    BOOST_TEST_REQUIRE(std::abs(set - draws / 2.0) < limit);
    BOOST_TEST_REQUIRE(std::abs(changed - draws / 2.0) < limit);
  }
}

BOOST_AUTO_TEST_CASE(rounding_bits_depend_on_seed_step_and_index_and_are_16_wide) {
  rounding const a{.stochastic = true, .seed = 1, .step = 2};
  rounding const b{.stochastic = true, .seed = 1, .step = 3}, c{.stochastic = true, .seed = 2, .step = 2};
  std::uint32_t all = 0;
  int same_step = 0, same_seed = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    all |= a.bits(i);
    same_step += a.bits(i) == b.bits(i);
    same_seed += a.bits(i) == c.bits(i);
    BOOST_TEST_REQUIRE(a.bits(i) == (random_bits(1, 2, static_cast<std::uint64_t>(i)) & 0xffff));
  }
  BOOST_TEST(all == 0xffffu);
  BOOST_TEST(same_step < 3);
  BOOST_TEST(same_seed < 3);
  BOOST_TEST(a.bits(std::int64_t{1} << 40) != a.bits(0));
}

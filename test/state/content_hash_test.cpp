// SPDX-License-Identifier: Apache-2.0
// labels: unit property state memory
#define BOOST_TEST_MODULE limber.state.content_hash
#include <limber/core/random.hpp>
#include <limber/state/content_hash.hpp>

#include <boost/test/unit_test.hpp>

#include <set>
#include <vector>

using namespace limber;
using namespace limber::state;

namespace {

std::vector<std::byte> random_bytes(std::size_t n, std::uint64_t seed) {
  std::vector<std::byte> out(n);
  for (std::size_t k = 0; k < n; ++k) out[k] = static_cast<std::byte>(random_bits(seed, 0, k));
  return out;
}

}  // namespace

// Worked out by read_safetensors.py: the form of files that are out there must not change.
BOOST_AUTO_TEST_CASE(values_are_those_of_other_implementations) {
  BOOST_TEST(print_hash(hash_of("")) == "e821a9cc1f06a6e9");
  BOOST_TEST(print_hash(hash_of("limber")) == "8bfa90aeaa479b14");
  std::string long_text;
  for (int k = 0; k < 100; ++k) long_text += static_cast<char>(k);
  BOOST_TEST(print_hash(hash_of(long_text)) == "5a6d0c9c8be3ed9a");
}

BOOST_AUTO_TEST_CASE(portions_do_not_matter) {
  for (std::size_t n : {0u, 1u, 31u, 32u, 33u, 64u, 200u}) {
    auto const all = random_bytes(n, 3);
    for (std::size_t a = 0; a <= n; a += 7)
      for (std::size_t b = a; b <= n; b += 5) {
        content_hash h;
        std::span const s(all);
        h.update(s.first(a));
        h.update(s.subspan(a, b - a));
        h.update(s.subspan(b));
        BOOST_REQUIRE(h.value() == hash_of(all));
      }
  }
}

// A change within one word is found for certain, not only nearly always.
BOOST_AUTO_TEST_CASE(every_bit_every_byte_and_the_length_count) {
  auto bytes = random_bytes(77, 9);
  auto const before = hash_of(bytes);
  std::set<std::uint64_t> seen{before};
  for (auto& b : bytes) {
    auto const kept = b;
    for (unsigned v = 0; v < 256; ++v) {
      b = static_cast<std::byte>(v);
      if (b != kept) BOOST_REQUIRE(seen.insert(hash_of(bytes)).second);
    }
    b = kept;
  }
  bytes.assign(64, std::byte{0});
  std::set<std::uint64_t> lengths;
  for (std::size_t n = 0; n <= bytes.size(); ++n) lengths.insert(hash_of(std::span(bytes).first(n)));
  BOOST_TEST(lengths.size() == bytes.size() + 1);
}

// Two words that change places, or lanes, are not the same bytes.
BOOST_AUTO_TEST_CASE(order_counts) {
  auto const bytes = random_bytes(128, 4);
  std::set<std::uint64_t> seen{hash_of(bytes)};
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = i + 1; j < 16; ++j) {
      auto other = bytes;
      for (std::size_t k = 0; k < 8; ++k) std::swap(other[8 * i + k], other[8 * j + k]);
      BOOST_REQUIRE(seen.insert(hash_of(other)).second);
    }
}

BOOST_AUTO_TEST_CASE(digits_are_read_as_they_are_written_and_in_no_other_way) {
  for (std::uint64_t const h : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{0x0123'4567'89ab'cdef}}) {
    BOOST_TEST((read_hash(print_hash(h)) == h));
  }
  BOOST_TEST(print_hash(0xab) == "00000000000000ab");
  for (auto const* const wrong : {"", "ab", "00000000000000AB", "00000000000000ag", "-0000000000000ab",
                                  "0x000000000000ab", "00000000000000abc", " 0000000000000ab"})
    BOOST_TEST(!read_hash(wrong), wrong);
}

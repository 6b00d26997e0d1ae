// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A random permutation that is computed index by index, in constant memory.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/math.hpp>
#include <limber/core/random.hpp>

namespace limber {

/// A permutation of 0 … N−1 drawn by (seed, stream); every element costs the same.
///
/// A Feistel network on pairs (l, r) of a rectangle a × b ≥ N, a = ⌈√N⌉ rounded up to even and
/// b = ⌈N/a⌉:
///
///     l ← (l + F₀(r)) mod a,  r ← (r + F₁(l)) mod b,  l ← (l + F₂(r)) mod a, …
///
/// Each step can be undone, so the network permutes the rectangle whatever the F are (Philox here);
/// where a result is not below N the network is applied again, until it is.
///
/// Shapes   1 ≤ N ≤ 2⁶². The rectangle has fewer than a elements beyond N, so one pass nearly always
///          does.
/// Cost     12 Philox blocks an element, 24 below 1,024 elements, where fewer rounds do not reach all
///          permutations alike.
/// Choices  additions modulo a and b instead of the xor of a power of two: no pass is wasted. With a and
///          b odd every step would be an even permutation, so a is even.
/// Paper    Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002.
class permutation {
 public:
  /// @throws std::invalid_argument if size is not in [1, 2⁶²]
  permutation(i64 size, std::uint64_t seed, std::uint64_t stream)
      : size_(size), seed_(seed), stream_(stream) {
    expects(size >= 1 && size <= (i64{1} << 62), "permutation: size must lie in [1, 2^62], got ", size);
    a_ = static_cast<i64>(math::sqrt(static_cast<double>(size)));
    // The root of a rounded double may be off by a few units.
    while (a_ * a_ >= size && a_ > 1) --a_;
    while (a_ * a_ < size) ++a_;
    a_ += a_ % 2;
    b_ = (size - 1) / a_ + 1;
  }

  [[nodiscard]] LIMBER_HD i64 size() const noexcept { return size_; }

  /// The element at position i. @pre 0 ≤ i < size()
  [[nodiscard]] LIMBER_HD i64 operator()(i64 i) const noexcept {
    do i = once(i);
    while (i >= size_);
    return i;
  }

 private:
  [[nodiscard]] LIMBER_HD i64 once(i64 i) const noexcept {
    i64 l = i / b_, r = i % b_;
    int const rounds = size_ < 1024 ? 24 : 12;
    for (int round = 0; round < rounds; round += 2) {
      l = (l + random(r, round, a_)) % a_;
      r = (r + random(l, round + 1, b_)) % b_;
    }
    return l * b_ + r;
  }

  /// F of one round, in [0, n): a function of the other half, the round, the stream and the seed.
  [[nodiscard]] LIMBER_HD i64 random(i64 half, int round, i64 n) const noexcept {
    // The high bit of the second word keeps these blocks apart from those of `random_bits`.
    words4 const w =
        philox({static_cast<std::uint32_t>(half), 0x8000'0000u | static_cast<std::uint32_t>(round),
                static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
               seed_);
    std::uint64_t const bits = (static_cast<std::uint64_t>(w.x) << 32) | w.y;
    return static_cast<i64>(bits % static_cast<std::uint64_t>(n));
  }

  i64 size_;
  i64 a_;
  i64 b_;
  std::uint64_t seed_;
  std::uint64_t stream_;
};

}  // namespace limber

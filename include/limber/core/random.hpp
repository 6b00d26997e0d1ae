// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Random numbers without state: a counter and a key in, bits out.

#include <limber/core/config.hpp>

#include <cstdint>

namespace limber {

/// Four 32-bit words.
struct words4 {
  std::uint32_t x, y, z, w;
};

/// Philox4x32-10: 128 random bits from a 128-bit counter and a 64-bit key.
///
/// The same on every device and in any order of evaluation, so that rounding and shuffling do not
/// depend on threads, grids or the number of workers.
/// Paper    Salmon, Moraes, Dror and Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
[[nodiscard]] LIMBER_HD inline words4 philox(words4 counter, std::uint64_t key) noexcept {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const a = std::uint64_t{0xD251'1F53u} * counter.x;
    std::uint64_t const b = std::uint64_t{0xCD9E'8D57u} * counter.z;
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter.y ^ k0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter.w ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E37'79B9u;
    k1 += 0xBB67'AE85u;
  }
  return counter;
}

/// 64 random bits keyed by (seed, stream, index).
[[nodiscard]] LIMBER_HD inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t stream,
                                                         std::uint64_t index) noexcept {
  words4 const r = philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                           static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                          seed);
  return (static_cast<std::uint64_t>(r.x) << 32) | r.y;
}

/// Where the random bits of a stochastic rounding come from; off by default.
///
/// Element i of a list rounds with the bits of (seed, step, i): its index counts from the start of
/// the list, so the bits do not depend on buckets, threads or launch geometry.
struct rounding {
  bool stochastic = false;
  std::uint64_t seed = 0;
  std::uint64_t step = 0;

  /// 16 random bits for element `index`.
  [[nodiscard]] LIMBER_HD std::uint32_t bits(i64 index) const noexcept {
    return static_cast<std::uint32_t>(random_bits(seed, step, static_cast<std::uint64_t>(index)) & 0xffffu);
  }
};

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Floats as 64-bit integers that share a unit, and back: sums of them are exact in any order.
///
/// Everything is integer arithmetic on the bits, so neither rounding modes nor flags that flush
/// denormals change a result, and host and device agree.

#include <limber/core/config.hpp>
#include <limber/core/dtype.hpp>

#include <bit>
#include <cstdint>

namespace limber::fixed_point {

/// How T is stored. @pre T is float, bf16 or f16
template <class T>
struct format;
template <>
struct format<float> {
  using word = std::uint32_t;
  static constexpr int fraction = 23, bias = 127;
};
template <>
struct format<bf16> {
  using word = std::uint16_t;
  static constexpr int fraction = 7, bias = 127;
};
template <>
struct format<f16> {
  using word = std::uint16_t;
  static constexpr int fraction = 10, bias = 15;
};

template <class T>
using word = typename format<T>::word;

/// The bits of an infinity; magnitudes (bits without the sign) from there on are not finite.
template <class T>
inline constexpr std::uint32_t infinity =
    ((1u << (8 * sizeof(word<T>) - 1)) - 1) >> format<T>::fraction << format<T>::fraction;
/// The NaN that sums of blocks with something non-finite give.
template <class T>
inline constexpr word<T> nan = static_cast<word<T>>(infinity<T> | (1u << (format<T>::fraction - 1)));

/// The biased exponent that a float of this magnitude of T has, but subnormals (and zero) count as the
/// lowest that is normal in T: 1, 113 for f16. 255 if it is not finite.
template <class T>
[[nodiscard]] LIMBER_HD inline int exponent_of(std::uint32_t magnitude) noexcept {
  int const field = static_cast<int>(magnitude >> format<T>::fraction);
  return magnitude >= infinity<T> ? 255 : (field > 0 ? field : 1) + 127 - format<T>::bias;
}

/// The power of two that one stands for in a block whose largest exponent is `exponent`, so that 2^guard
/// elements can be added. @pre 1 ≤ guard ≤ 31
[[nodiscard]] LIMBER_HD constexpr int unit_of(int exponent, int guard) noexcept {
  return exponent - 126 - (63 - guard);
}

/// x in units of 2^unit, to nearest, ties to even. @pre x is finite and in a block of that unit
template <class T>
[[nodiscard]] LIMBER_HD inline i64 encode(word<T> x, int unit) noexcept {
  constexpr int fraction = format<T>::fraction, sign = 8 * sizeof(word<T>) - 1;
  std::uint32_t const bits = x, magnitude = bits & ((1u << sign) - 1), field = magnitude >> fraction;
  std::uint32_t const leading = field != 0 ? 1u : 0u;
  std::uint32_t const significand = (magnitude & ((1u << fraction) - 1)) | (leading << fraction);
  // The leading bit starts as bit 61, and the whole only goes down: by 63 nothing is left. No branches,
  // and no shift of a constant, which GCC would not vectorise.
  int const far = 61 + format<T>::bias + unit - static_cast<int>(field + 1 - leading);
  auto const down = static_cast<std::uint64_t>(static_cast<std::uint32_t>(far < 63 ? far : 63));
  std::uint64_t const wide = static_cast<std::uint64_t>(significand) << (61 - fraction), kept = wide >> down;
  // What is cut off, where half a unit is bit 62; a tie goes up if that makes it even.
  std::uint64_t const rest = (wide ^ (kept << down)) << (63 - down), half = std::uint64_t{1} << 62;
  std::uint64_t const value = kept + ((rest + (kept & 1) + (half - 1)) >> 63);
  std::uint64_t const negative = std::uint64_t{0} - static_cast<std::uint64_t>(bits >> sign);
  return static_cast<i64>((value ^ negative) - negative);
}

[[nodiscard]] LIMBER_HD inline int leading_zeros(std::uint64_t x) noexcept {
#if defined(__CUDA_ARCH__)
  return __clzll(static_cast<long long>(x));
#else
  return std::countl_zero(x);
#endif
}

/// value × 2^unit as T, rounded once, to nearest, ties to even; beyond the largest it is an infinity.
/// Zero is +0.
template <class T>
[[nodiscard]] LIMBER_HD inline word<T> decode(i64 value, int unit) noexcept {
  constexpr int fraction = format<T>::fraction, lowest = 1 - format<T>::bias;
  if (value == 0) return 0;
  bool const negative = value < 0;
  std::uint64_t const size =
      negative ? ~static_cast<std::uint64_t>(value) + 1 : static_cast<std::uint64_t>(value);
  int const zeros = leading_zeros(size);
  std::uint64_t const normal = size << zeros;  // the leading bit on top, worth 2^exponent
  int const exponent = 63 - zeros + unit;
  int const below = exponent < lowest ? lowest - exponent : 0;
  int const cut = 63 - fraction + below;
  std::uint64_t kept;
  if (cut < 64) {
    std::uint64_t const half = std::uint64_t{1} << (cut - 1), rest = normal & (2 * half - 1);
    kept = normal >> cut;
    kept += rest > half || (rest == half && (kept & 1) != 0) ? 1 : 0;
  } else {
    kept = cut == 64 && normal > std::uint64_t{1} << 63 ? 1 : 0;
  }
  // The leading bit adds one to the exponent field, and so does a carry.
  std::uint64_t const field = below != 0 ? 0 : static_cast<std::uint64_t>(exponent - lowest);
  std::uint64_t const bits = (field << fraction) + kept;
  std::uint64_t const capped = bits < infinity<T> ? bits : infinity<T>;
  return static_cast<word<T>>(capped | (negative ? std::uint64_t{1} << (8 * sizeof(word<T>) - 1) : 0));
}

}  // namespace limber::fixed_point

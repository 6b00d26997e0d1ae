// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Reductions of two operands that engines lack: sums of 16-bit floats, and a maximum in which NaN wins.
/// Commutative bit for bit, including payloads of NaNs: an engine may swap the operands on one rank.

#include <limber/core/config.hpp>
#include <limber/core/dtype.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace limber::detail {

/// a + b in float, rounded to T. Every NaN becomes the same one.
template <class T>
[[nodiscard]] T pair_sum(T a, T b) noexcept {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
  float const sum = static_cast<float>(a) + static_cast<float>(b);
  T result(sum);
  if (sum != sum) result.bits = std::is_same_v<T, bf16> ? 0x7fc0 : 0x7e00;
  return result;
}

/// The larger one. NaN wins (of two, the one with the larger bits), and +0 is larger than −0.
template <class T>
[[nodiscard]] T pair_max(T a, T b) noexcept {
  if (a < b) return b;
  if (b < a || std::is_integral_v<T>) return a;
  using bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  bits x = 0, y = 0;
  std::memcpy(&x, &a, sizeof a);
  std::memcpy(&y, &b, sizeof b);
  bool const a_is_nan = a != a, b_is_nan = b != b;
  bits const chosen = a_is_nan && b_is_nan ? std::max(x, y) : a_is_nan ? x : b_is_nan ? y : (x & y);
  T result;
  std::memcpy(&result, &chosen, sizeof result);
  return result;
}

/// out[i] = combine(a[i], b[i]); out may be one of them.
template <class T, T (*combine)(T, T) noexcept>
void combine_pairs(void* out, void const* a, void const* b, std::size_t n) noexcept {
  auto* const to = static_cast<T*>(out);
  auto const *const x = static_cast<T const*>(a), *const y = static_cast<T const*>(b);
  for (std::size_t i = 0; i < n; ++i) to[i] = combine(x[i], y[i]);
}

}  // namespace limber::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Reductions that MPI lacks: sums of 16-bit floats, and a maximum in which NaN wins.
///
/// Bits     commutative bit for bit, including payloads of NaNs: an engine may swap the operands on one rank.

#include <limber/core/config.hpp>
#include <limber/core/dtype.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace limber::mpi::detail {

/// a + b in float, rounded to T. Every NaN becomes the same one.
template <class T>
[[nodiscard]] T added(T a, T b) noexcept {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
  float const sum = static_cast<float>(a) + static_cast<float>(b);
  T result(sum);
  if (sum != sum) result.bits = std::is_same_v<T, bf16> ? 0x7fc0 : 0x7e00;
  return result;
}

/// The larger one. NaN wins (of two, the one with the larger bits), and +0 is larger than −0.
template <class T>
[[nodiscard]] T larger(T a, T b) noexcept {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
  if (a < b) return b;
  if (b < a) return a;
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

/// inout[i] = combine(in[i], inout[i])
template <class T, T (*combine)(T, T) noexcept>
void combine_all(void const* in, void* inout, i64 n) noexcept {
  auto const* const a = static_cast<T const*>(in);
  auto* const b = static_cast<T*>(inout);
  for (i64 i = 0; i < n; ++i) b[i] = combine(a[i], b[i]);
}

}  // namespace limber::mpi::detail

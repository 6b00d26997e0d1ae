// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The data movement of collectives whose ranks share an address space, divisible at any element.

#include <limber/comm/detail/signature.hpp>
#include <limber/core/config.hpp>

#include <cstddef>
#include <span>

namespace limber::detail {

/// The buffers of one rank in a call.
struct rank_buffers {
  std::byte const* in = nullptr;
  std::byte* out = nullptr;
  int color = 0;      ///< of a split
  bool here = false;  ///< the rank has arrived
};

/// Elements of the whole result, of all blocks: the range into which the work of a call is divided.
[[nodiscard]] i64 extent(signature const& s, int ranks) noexcept;

// NaN wins, the first one in rank order.
template <class T>
[[nodiscard]] T larger(T a, T b) noexcept {
  return a < b || (b != b && a == a) ? b : a;
}

inline constexpr i64 reduce_tile = 1024;

/// Computes elements [first, last) of a call's result once, and stores them to all outputs.
///
/// Bits     each element depends on the inputs only, not on the division of the work.
void perform(signature const& s, std::span<rank_buffers const> ranks, i64 first, i64 last) noexcept;

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/comm/detail/impl/host_collective.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The little of <algorithm> that most units need: that header costs a unit 0.1 s.

#include <limber/core/config.hpp>
#include <limber/core/function_ref.hpp>

#include <span>
#include <vector>

namespace limber::detail {

template <class T>
[[nodiscard]] constexpr T least(T a, T b) noexcept {
  return b < a ? b : a;
}
template <class T>
[[nodiscard]] constexpr T greatest(T a, T b) noexcept {
  return a < b ? b : a;
}

template <class Range, class T>
[[nodiscard]] constexpr bool contains(Range const& all, T const& one) noexcept {
  for (auto const& x : all)
    if (x == one) return true;
  return false;
}

/// Sorts by before(a, b): a heap sort, of which a unit compiles a tenth of std::sort. Elements that are equal
/// come in any order.
void sort(std::span<i64> order, function_ref<bool(i64, i64)> before);
/// 0, 1, …, n − 1, sorted.
[[nodiscard]] std::vector<i64> sorted_order(std::size_t n, function_ref<bool(i64, i64)> before);

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/core/impl/order.ipp>
#endif

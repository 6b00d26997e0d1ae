// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Dividing a whole number in proportion to weights.

#include <limber/core/config.hpp>

#include <concepts>
#include <span>
#include <vector>

namespace limber {

/// What shares can be proportional to: counts (exact) or speeds.
template <class W>
concept apportion_weight = std::same_as<W, i64> || std::same_as<W, double>;

namespace detail {
/// `apportion` into vectors that the caller keeps: allocates nothing once they are large enough.
template <apportion_weight W>
void apportion_into(i64 total, std::span<W const> weights, std::vector<i64>& share, std::vector<i64>& order);
}  // namespace detail

/// Divides `total` in proportion to `weights` by largest remainders (Hamilton's method).
///
///     qᵢ = total · wᵢ / Σw      sᵢ = ⌊qᵢ⌋, and + 1 for the largest qᵢ − ⌊qᵢ⌋ until Σ sᵢ = total
///
/// Shapes   one share a weight; Σ shares = total exactly; |sᵢ − qᵢ| < 1; weight 0 gets 0.
/// Cost     O(n log n).
/// Choices  equal remainders: the lower rank first, so that every rank computes the same shares.
///          Whole weights are divided exactly; with double weights quotas are rounded, and |sᵢ − qᵢ|
///          holds up to that rounding.
/// @throws std::invalid_argument for a negative total, no weights, a weight that is negative or not
///         finite, weights that sum to 0, and sizes whose products overflow
template <apportion_weight W>
[[nodiscard]] std::vector<i64> apportion(i64 total, std::span<W const> weights) {
  std::vector<i64> share, order;
  detail::apportion_into(total, weights, share, order);
  return share;
}

template <apportion_weight W>
[[nodiscard]] std::vector<i64> apportion(i64 total, std::vector<W> const& weights) {
  return apportion(total, std::span<W const>(weights));
}

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/apportion.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Dividing a whole number in proportion to weights, with a smallest and a largest share.

#include <limber/core/config.hpp>

#include <span>
#include <vector>

namespace limber::detail {

/// Divides `total` in proportion to `weights`, every share in [low, highᵢ].
///
///     sᵢ = clamp(λ wᵢ, low, highᵢ), with the level λ at which Σ sᵢ = total; the ranks between their bounds
///     are rounded by largest remainders
///
/// Where plain largest remainders fit the bounds, they are the answer.
/// Cost     O(n log n): 2n levels are sorted and searched by halves.
/// @pre weights > 0, n · low ≤ total ≤ Σ high, total ≤ 2⁵³, 0 ≤ low ≤ highᵢ ≤ total
[[nodiscard]] std::vector<i64> apportion_within(i64 total, std::span<double const> weights, i64 low,
                                                std::span<i64 const> high);

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/bounded.ipp>
#endif

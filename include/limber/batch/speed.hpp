// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How fast each rank is, from what was measured and what was believed before.

#include <limber/batch/plan.hpp>

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

namespace limber::detail {

/// The plan in force if it was made for these ranks, else null: after a resize rank i is somebody else.
[[nodiscard]] batch_plan const* plan_in_force(batch_facts const& facts);

/// Samples/s of each rank; empty while no rank was measured.
///
///     pᵢ ← a pᵢ + (1 − a) bᵢ / tᵢ      (pᵢ ← bᵢ / tᵢ when first measured)
///
/// A rank without samples or without a time keeps its pᵢ.
/// @param smoothing a, in [0, 1)
/// @throws std::invalid_argument if seconds or believed speeds are negative or not finite, or their
///         numbers are not that of the ranks
[[nodiscard]] std::vector<double> believed_speeds(std::string_view policy, batch_facts const& facts,
                                                  double smoothing);

/// Weights in (0, 1] in proportion to speeds. A rank never measured weighs as the mean of the others; all
/// weigh alike while none was.
[[nodiscard]] std::vector<double> weights_of(std::span<double const> speed, std::size_t world);

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/speed.ipp>
#endif

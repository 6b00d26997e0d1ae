// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A constant global batch.

#include <limber/batch/plan.hpp>

namespace limber {

/// The global batch stays `batch` whatever the number of workers.
///
///     bᵢ = ⌊B/n⌋ + (i < B mod n)
///
/// Units    samples per update, over all workers.
/// Choices  the first ranks get the odd samples, so shares differ by at most 1. Fewer samples than
///          workers is an error: somebody would never work (`logical_shards` allows it).
struct fixed {
  i64 batch = 0;  ///< B, ≥ number of workers

  /// @throws std::invalid_argument if there are no workers or the batch is smaller than their number
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/fixed.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A constant global batch.

#include <limber/batch/plan.hpp>

#include <cstddef>

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
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const {
    i64 const world = detail::world_of("fixed", facts);
    expects(batch >= 1, "fixed: batch must be at least 1, got ", batch);
    expects(batch >= world, "fixed: batch ", batch, " is smaller than ", world, " workers");
    batch_plan plan{.total = batch};
    plan.share.assign(static_cast<std::size_t>(world), batch / world);
    for (i64 i = 0; i < batch % world; ++i) ++plan.share[static_cast<std::size_t>(i)];
    return plan;
  }
};

}  // namespace limber

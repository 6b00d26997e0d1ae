// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A global batch that grows with the workers.

#include <limber/batch/plan.hpp>

namespace limber {

/// Every worker takes `batch` samples: B = b · n.
///
/// Units    samples per update and worker.
/// Choices  the rate must follow B (`linear_scaling`, ramped): this is the policy of
/// Paper    Lin et al., Dynamic Mini-batch SGD for Elastic Distributed Training, arXiv:1904.12043.
struct per_worker {
  i64 batch = 0;  ///< b, ≥ 1

  /// @throws std::invalid_argument if there are no workers, or no samples, or too many for 64 bits
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/fixed.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How a server weighs gradients that were taken at an older model, and its log of them.

#include <limber/core/config.hpp>

#include <vector>

namespace limber::sync {

/// The weight of a gradient that is τ updates late.
enum class staleness_rule {
  none,     ///< 1
  inverse,  ///< 1/max(1, τ)
};

/// The gradients that a server used, in the order in which they arrived.
struct server_log {
  struct entry {
    int worker = 0;
    i64 staleness = 0;  ///< τ, updates
    i64 samples = 0;
    i64 steps = 0;  ///< updates that the server had made when it arrived
  };
  std::vector<entry> entries;

  /// How many gradients were 0, 1, 2, … updates late.
  [[nodiscard]] std::vector<i64> histogram() const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/staleness.ipp>
#endif

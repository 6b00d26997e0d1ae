// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A constant global batch of logical shards, dealt over any number of workers.

#include <limber/batch/plan.hpp>

namespace limber {

/// The global batch is S shards of m samples, whatever the number of workers n.
///
///     calls per update ⌈S/n⌉;  on call j rank r works on shard j·n + r if that is < S, else on none
///
/// The samples of a shard (`sampler::deal_shard`) and the order in which shards are added do not
/// depend on n. With shards reduced one by one, training does not depend on n either.
///
/// Units    samples per shard; a rank's share is m times the shards it works on in one update.
/// Choices  more workers than shards is legal: the last ones have share 0.
struct logical_shards {
  i64 shards = 0;     ///< S, ≥ 1
  i64 per_shard = 0;  ///< m, ≥ 1

  /// @throws std::invalid_argument if there are no workers, shards or samples, or too many for 64 bits
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const;
};

/// The shard that `rank` works on in call `call` of an update, −1 if none.
/// @throws std::invalid_argument if the plan has no shards, or rank or call is out of range
[[nodiscard]] i64 shard_of(batch_plan const& plan, int world, int rank, i64 call);

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/fixed.ipp>
#endif

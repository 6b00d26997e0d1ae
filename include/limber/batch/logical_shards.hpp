// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A constant global batch of logical shards, dealt over any number of workers.

#include <limber/batch/plan.hpp>

#include <cstddef>

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
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const {
    i64 const world = detail::world_of("logical_shards", facts);
    expects(shards >= 1, "logical_shards: shards must be at least 1, got ", shards);
    expects(per_shard >= 1, "logical_shards: per_shard must be at least 1, got ", per_shard);
    batch_plan plan{.total = detail::checked_product("logical_shards", shards, per_shard),
                    .shards = shards,
                    .calls_per_update = (shards - 1) / world + 1};
    plan.share.resize(static_cast<std::size_t>(world));
    for (i64 r = 0; r < world; ++r)
      plan.share[static_cast<std::size_t>(r)] = (shards / world + (r < shards % world ? 1 : 0)) * per_shard;
    return plan;
  }
};

/// The shard that `rank` works on in call `call` of an update, −1 if none.
/// @throws std::invalid_argument if the plan has no shards, or rank or call is out of range
[[nodiscard]] inline i64 shard_of(batch_plan const& plan, int world, int rank, i64 call) {
  expects(plan.shards >= 1, "shard_of: the plan has no shards");
  expects(world >= 1, "shard_of: world must be at least 1, got ", world);
  expects(rank >= 0 && rank < world, "shard_of: rank must lie in [0, ", world, "), got ", rank);
  i64 const calls = (plan.shards - 1) / world + 1;
  expects(call >= 0 && call < calls, "shard_of: call must lie in [0, ", calls, "), got ", call);
  i64 const shard = call * world + rank;
  return shard < plan.shards ? shard : -1;
}

}  // namespace limber

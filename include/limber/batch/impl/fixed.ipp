// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/fixed.hpp>
#include <limber/batch/logical_shards.hpp>
#include <limber/batch/per_worker.hpp>

namespace limber {

LIMBER_FN batch_plan fixed::operator()(batch_facts const& facts) const {
  i64 const world = detail::world_of("fixed", facts);
  expects(batch >= 1, "fixed: batch must be at least 1, got ", batch);
  expects(batch >= world, "fixed: batch ", batch, " is smaller than ", world, " workers");
  batch_plan plan{.total = batch};
  plan.share.assign(static_cast<std::size_t>(world), batch / world);
  for (i64 i = 0; i < batch % world; ++i) ++plan.share[static_cast<std::size_t>(i)];
  return plan;
}

LIMBER_FN batch_plan per_worker::operator()(batch_facts const& facts) const {
  i64 const world = detail::world_of("per_worker", facts);
  expects(batch >= 1, "per_worker: batch must be at least 1, got ", batch);
  batch_plan plan{.total = detail::checked_product("per_worker", batch, world)};
  plan.share.assign(static_cast<std::size_t>(world), batch);
  return plan;
}

LIMBER_FN batch_plan logical_shards::operator()(batch_facts const& facts) const {
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

LIMBER_FN i64 shard_of(batch_plan const& plan, int world, int rank, i64 call) {
  expects(plan.shards >= 1, "shard_of: the plan has no shards");
  expects(world >= 1, "shard_of: world must be at least 1, got ", world);
  expects(rank >= 0 && rank < world, "shard_of: rank must lie in [0, ", world, "), got ", rank);
  i64 const calls = (plan.shards - 1) / world + 1;
  expects(call >= 0 && call < calls, "shard_of: call must lie in [0, ", calls, "), got ", call);
  i64 const shard = call * world + rank;
  return shard < plan.shards ? shard : -1;
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/per_worker.hpp>

#include <cstddef>

namespace limber {

LIMBER_FN batch_plan per_worker::operator()(batch_facts const& facts) const {
  i64 const world = detail::world_of("per_worker", facts);
  expects(batch >= 1, "per_worker: batch must be at least 1, got ", batch);
  batch_plan plan{.total = detail::checked_product("per_worker", batch, world)};
  plan.share.assign(static_cast<std::size_t>(world), batch);
  return plan;
}

}  // namespace limber

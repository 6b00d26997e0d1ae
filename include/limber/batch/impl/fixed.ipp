// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/fixed.hpp>

#include <cstddef>

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

}  // namespace limber

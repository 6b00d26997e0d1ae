// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/plan.hpp>

#include <limits>

namespace limber::detail {

LIMBER_FN i64 world_of(std::string_view policy, batch_facts const& facts) {
  expects(facts.world >= 1, policy, ": world must be at least 1, got ", facts.world);
  return facts.world;
}

LIMBER_FN i64 checked_product(std::string_view policy, i64 a, i64 b) {
  expects(a <= std::numeric_limits<i64>::max() / b, policy, ": ", a, " x ", b, " samples do not fit 64 bits");
  return a * b;
}

}  // namespace limber::detail

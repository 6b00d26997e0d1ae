// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/staleness.hpp>

#include <cstddef>

namespace limber::sync {

LIMBER_FN std::vector<i64> server_log::histogram() const {
  std::vector<i64> out;
  for (auto const& e : entries) {
    auto const k = static_cast<std::size_t>(e.staleness);
    if (k >= out.size()) out.resize(k + 1);
    ++out[k];
  }
  return out;
}

}  // namespace limber::sync

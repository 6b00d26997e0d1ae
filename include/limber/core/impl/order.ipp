// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/order.hpp>

#include <utility>

namespace limber::detail {

LIMBER_COLD LIMBER_FN void sort(std::span<i64> order, function_ref<bool(i64, i64)> before) {
  std::size_t const n = order.size();
  auto const sink = [&](std::size_t at, std::size_t end) {
    for (std::size_t child = 2 * at + 1; child < end; child = 2 * (at = child) + 1) {
      if (child + 1 < end && before(order[child], order[child + 1])) ++child;
      if (!before(order[at], order[child])) return;
      std::swap(order[at], order[child]);
    }
  };
  for (std::size_t k = n / 2; k > 0; --k) sink(k - 1, n);
  for (std::size_t end = n; end > 1; --end) {
    std::swap(order[0], order[end - 1]);
    sink(0, end - 1);
  }
}

LIMBER_COLD LIMBER_FN std::vector<i64> sorted_order(std::size_t n, function_ref<bool(i64, i64)> before) {
  std::vector<i64> order(n);
  for (std::size_t k = 0; k < n; ++k) order[k] = static_cast<i64>(k);
  sort(order, before);
  return order;
}

}  // namespace limber::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/error.hpp>
#include <limber/sync/fragments.hpp>

#include <algorithm>
#include <cstddef>

namespace limber::sync {

LIMBER_FN std::vector<std::vector<i64>> deal_fragments(tensor_list const& tensors, std::vector<i64> use_order,
                                                       i64 fragments) {
  auto const length = [&](i64 i) { return tensors[static_cast<std::size_t>(i)].length; };
  i64 const filled = std::ranges::count_if(tensors, [](auto const& t) { return t.length > 0; });
  expects(fragments >= 1 && fragments <= std::max<i64>(1, filled),
          "streaming: fragments must be at least 1 and no more than the ", filled,
          " tensors that have elements, got ", fragments);
  if (use_order.empty())
    for (i64 i = 0; i < static_cast<i64>(tensors.size()); ++i) use_order.push_back(i);
  std::ranges::stable_sort(use_order, [&](i64 a, i64 b) { return length(a) > length(b); });
  auto const n = static_cast<std::size_t>(fragments);
  std::vector<std::vector<i64>> groups(n);
  std::vector<i64> elements(n);
  for (i64 const i : use_order) {
    auto const least = static_cast<std::size_t>(std::ranges::min_element(elements) - elements.begin());
    groups[least].push_back(i);
    elements[least] += length(i);
  }
  for (auto& g : groups) std::ranges::sort(g);
  return groups;
}

LIMBER_FN tensor_list pick(tensor_list const& from, std::vector<i64> const& places) {
  tensor_list some;
  for (i64 const i : places) some.push_back(from[static_cast<std::size_t>(i)]);
  return some;
}

LIMBER_FN slab slab_within(slab const& owner, layout const& where) {
  return slab_over(flat_memory(owner.data(), [](std::byte*) {}), where);
}

}  // namespace limber::sync

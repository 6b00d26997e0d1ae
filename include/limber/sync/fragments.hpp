// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A model in fragments, each of which is communicated at its own time.

#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/layout.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace limber::sync {

/// Deals the tensors of a list to `fragments` groups of nearly equal size, as indices in ascending order.
///
/// Choices  the largest tensor first, to the smallest group so far; equal ones in the order of use. Equal
///          layers are thereby dealt in strides, fragment k getting layers k, k + fragments, …. A tensor is
///          never cut: the largest one is the least that a fragment can be.
/// @param use_order  indices into `tensors` in the order in which forward uses them; empty: list order
/// @throws std::invalid_argument unless every fragment gets a tensor that has elements
[[nodiscard]] inline std::vector<std::vector<i64>> deal_fragments(tensor_list const& tensors,
                                                                  std::vector<i64> use_order, i64 fragments) {
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

/// The tensors at these places of a list.
[[nodiscard]] inline tensor_list pick(tensor_list const& from, std::vector<i64> const& places) {
  tensor_list some;
  for (i64 const i : places) some.push_back(from[static_cast<std::size_t>(i)]);
  return some;
}

/// A layout over the memory of `owner`, which must be large enough and outlive it.
[[nodiscard]] inline slab slab_within(slab const& owner, layout const& where) {
  return slab_over(flat_memory(owner.data(), [](std::byte*) {}), where);
}

}  // namespace limber::sync

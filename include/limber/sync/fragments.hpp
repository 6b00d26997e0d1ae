// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A model in fragments, each of which crosses at its own time.

#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/layout.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
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
  if (use_order.empty()) {
    use_order.resize(tensors.size());
    std::iota(use_order.begin(), use_order.end(), i64{0});
  }
  std::ranges::stable_sort(use_order, [&](i64 a, i64 b) { return length(a) > length(b); });
  auto const n = static_cast<std::size_t>(fragments);
  std::vector<std::vector<i64>> out(n);
  std::vector<i64> elements(n);
  for (i64 const i : use_order) {
    auto const least = static_cast<std::size_t>(std::ranges::min_element(elements) - elements.begin());
    out[least].push_back(i);
    elements[least] += length(i);
  }
  for (auto& f : out) std::ranges::sort(f);
  return out;
}

/// The tensors at these places of a list.
[[nodiscard]] inline tensor_list pick(tensor_list const& from, std::vector<i64> const& places) {
  tensor_list out;
  for (i64 const i : places) out.push_back(from[static_cast<std::size_t>(i)]);
  return out;
}

/// A layout over the memory of `owner`, which must be large enough and outlive it.
[[nodiscard]] inline slab lent(slab const& owner, layout const& where) {
  return slab_over(slab::memory(owner.data(), [](std::byte*) {}), where);
}

}  // namespace limber::sync

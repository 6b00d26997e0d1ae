// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A model in fragments, each of which is communicated at its own time.

#include <limber/core/tensor.hpp>
#include <limber/fuse/layout.hpp>

#include <vector>

namespace limber::sync {

/// Deals the tensors of a list to `fragments` groups of nearly equal size, as indices in ascending order.
///
/// Choices  the largest tensor first, to the smallest group so far; equal ones in the order of use. Equal
///          layers are thereby dealt in strides, fragment k getting layers k, k + fragments, …. A tensor is
///          never cut: the largest one is the least that a fragment can be.
/// @param use_order  indices into `tensors` in the order in which forward uses them; empty: list order
/// @throws std::invalid_argument unless every fragment gets a tensor that has elements
[[nodiscard]] std::vector<std::vector<i64>> deal_fragments(tensor_list const& tensors,
                                                           std::vector<i64> use_order, i64 fragments);

/// The tensors at these places of a list.
[[nodiscard]] tensor_list pick(tensor_list const& from, std::vector<i64> const& places);

/// A layout over the memory of `owner`, which must be large enough and outlive it.
[[nodiscard]] slab slab_within(slab const& owner, layout const& where);

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/fragments.ipp>
#endif

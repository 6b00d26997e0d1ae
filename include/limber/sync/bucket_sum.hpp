// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Starts the sum of one bucket over a group.

#include <limber/comm/collective.hpp>
#include <limber/fuse/bucket_plan.hpp>

#include <span>

namespace limber::sync {

/// The bucket's run of `from`, summed over the ranks into that of `to`; collectives that want to know where
/// its tensors start are told. Returns the request.
template <collective C>
[[nodiscard]] auto sum_bucket(C& group, bucket const& b, slab const& from, slab const& to) {
  if constexpr (sums_pieces<C>)
    return group.all_reduce(bucket_view(from, b), bucket_view(to, b), std::span<piece const>(b.pieces));
  else
    return group.all_reduce(bucket_view(from, b), bucket_view(to, b));
}

}  // namespace limber::sync

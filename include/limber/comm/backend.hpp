// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// For collectives of one's own (examples/own_collective.hpp): the checks of a call's arguments, what ranks
/// must agree on, and the arithmetic of its result.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/host_collective.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/core/error.hpp>

namespace limber::backend {

/// One call without its memory: compare it with `==` before data are exchanged, by its bytes on the wire.
using detail::signature;
/// all_reduce, reduce_scatter, all_gather, broadcast or barrier.
using detail::operation;

// The signature of a call. @throws std::invalid_argument naming the call and what is wrong
using detail::all_gather_of;
using detail::all_reduce_of;
using detail::broadcast_of;
using detail::reduce_scatter_of;

/// "all_reduce of 8 f32 (sum)", and the tensor's name: for errors.
using detail::bucket_of;
using detail::text_of;

/// perform(s, ranks, first, last) computes elements [first, last) of a call's result from the inputs of all
/// ranks, and stores them to all outputs; extent(s, size) is how many there are. Sums are added in rank
/// order.
using detail::extent;
using detail::perform;
using detail::rank_buffers;

}  // namespace limber::backend

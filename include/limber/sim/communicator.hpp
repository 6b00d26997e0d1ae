// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of the virtual cluster: real data, modelled time.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/process_group.hpp>

#include <span>
#include <utility>

namespace limber::sim {

/// An operation in flight. `wait` lets virtual time pass until it has ended; `done` is true from then on.
using request = limber::detail::group_request;

/// One worker's handle to a group of workers of the virtual cluster.
///
/// Time     an operation starts when its last rank has arrived and the previous operation of the group has
///          ended; it takes the time given in cost.hpp. Operations of different groups do not slow each other
///          down. A message occupies its sender's link for n/β and, from then on or as soon as it is free,
///          its receiver's link; it arrives α after the receiver's link has taken it. A worker has one
///          outgoing and one incoming link of each kind (network, inside). Messages to oneself arrive at
///          once.
/// Bits     as in `threads`: sums are added in rank order, so a model trained here is equal bit for bit.
/// Errors   limber::error of engine "sim" with the call and bucket of the rank that gets it and the rank at
///          fault: a rank died (known after cluster.detection), threw, left without making a call that others
///          wait in, or destroyed a request before waiting; ranks differ in their calls; or a deadlock, whose
///          message lists what each worker waits for. There is no deadline.
/// Choices  an operation in flight when a rank dies completes on no rank. A death fails a group when a rank
///          needs the dead one; the mailbox keeps working, and messages to the dead are dropped. `done` and
///          `poll` cost no time, but a worker that keeps polling at one instant waits until an event at it,
///          so that loops around them end. `send` returns when the sender's link has taken the message,
///          whether or not it is received.
///
/// Move-only. Used by its own worker only, inside sim::run.
class communicator : public limber::detail::group_handle {
 public:
  explicit communicator(limber::detail::place at) noexcept : group_handle("sim", std::move(at)) {}

  /// The ranks of equal color; this group stays usable.
  [[nodiscard]] communicator split(int color) { return communicator(split_place(color)); }

  /// Fails this group (not those split from it) on all its ranks, at once.
  using group_handle::revoke;

  /// Called by all survivors, in any state of the group; the ranks in `lost` get an error.
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if survivors pass different lists, or one of them has left or died
  [[nodiscard]] communicator shrink(std::span<int const> lost) { return communicator(shrink_place(lost)); }

  using group_handle::post;
  /// The next message that has arrived, in order of arrival, from any rank.
  using group_handle::poll;
  /// Waits for an unread message, of any tag, that arrived after the last listen() returned.
  /// @throws limber::error if the group failed, or all others have left or died and no message is in transit
  using group_handle::listen;
};

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::sim

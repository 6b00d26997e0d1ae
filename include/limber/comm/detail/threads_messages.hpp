// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Messages between two ranks of `threads`; both kinds are copied when they are sent.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/threads_group.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

namespace limber::threads::detail {

inline void group::send(int rank, int peer, const_tensor_view in) {
  tensor_message l{in.type, in.length, {in.data, in.data + in.bytes()}};
  world_lock lock(*world_);
  check_in(lock, rank, "send", in.name);
  if (at(peer).left) {
    fail(lock, peer, text(rank_name(peer), " has left and receives nothing from ", rank_name(rank)));
    throw failure_error("send", in.name);
  }
  at(peer).tensor_messages[rank].push_back(std::move(l));
  if (at(peer).awaits == any_event) lock.wake(state_of(peer));
}

inline void group::recv(int rank, int peer, tensor_view out) {
  wait_timer p{world_->now()};
  world_lock lock(*world_);
  fail_unwound(lock, *world_, at(rank).world_rank);
  auto& queue = at(rank).tensor_messages[peer];
  for (bool timed_out = false; queue.empty(); timed_out = wait_for_event(lock, rank, any_event, p)) {
    if (halted_ && timed_out) fail(lock, failed_rank_, exception_message());
    if (!halted_ && at(peer).left)
      fail(lock, peer, text(rank_name(peer), " has left and sends nothing to ", rank_name(rank)));
    if (!halted_ && timed_out)
      fail(lock, peer,
           text(rank_name(peer), " sent nothing to ", rank_name(rank), " within ", world_->how.deadline,
                " s"));
    if (failed_) throw failure_error("recv", out.name);
  }
  tensor_message const l = std::move(queue.front());
  queue.pop_front();
  if (l.type != out.type || l.length != out.length) {
    fail(lock, rank,
         text(rank_name(rank), " receives ", out.length, " ", limber::name_of(out.type), " but ",
              rank_name(peer), " sent ", l.length, " ", limber::name_of(l.type)));
    throw failure_error("recv", out.name);
  }
  lock.unlock();
  if (!l.bytes.empty()) std::memcpy(out.data, l.bytes.data(), l.bytes.size());
}

inline void group::post(int rank, int peer, i64 tag, std::span<std::byte const> bytes) {
  message m{rank, {bytes.begin(), bytes.end()}};
  world_lock lock(*world_);
  check_in(lock, rank, "post", {});
  if (at(peer).left) return;
  at(peer).mailbox[tag].push_back(std::move(m));
  ++at(peer).mailbox_arrivals;
  if (at(peer).awaits == any_event) lock.wake(state_of(peer));
}

/// Messages that arrived before the group failed are still delivered.
inline std::optional<message> group::poll(int rank, i64 tag) {
  world_lock lock(*world_);
  auto& mailbox = at(rank).mailbox;
  auto const queue = mailbox.find(tag);
  if (queue == mailbox.end()) {
    check_in(lock, rank, "poll", {});
    return std::nullopt;
  }
  std::optional<message> first{std::move(queue->second.front())};
  queue->second.pop_front();
  if (queue->second.empty()) mailbox.erase(queue);
  return first;
}

/// Waits for a message that arrived after the last listen() returned.
inline void group::listen(int rank) {
  wait_timer p{world_->now()};
  world_lock lock(*world_);
  check_in(lock, rank, "listen", {});
  for (bool timed_out = false; at(rank).mailbox_arrivals == at(rank).mailbox_seen;
       timed_out = wait_for_event(lock, rank, any_event, p)) {
    if (halted_ && timed_out) fail(lock, failed_rank_, exception_message());
    if (!halted_ && left_count_ == size() - 1 && !at(rank).left)
      fail(lock, rank, text("all others have left, and nobody posts to ", rank_name(rank)));
    if (!halted_ && timed_out)
      fail(lock, rank,
           text("nobody posted anything to ", rank_name(rank), " within ", world_->how.deadline, " s"));
    if (failed_) throw failure_error("listen", {});
  }
  at(rank).mailbox_seen = at(rank).mailbox_arrivals;
}

}  // namespace limber::threads::detail

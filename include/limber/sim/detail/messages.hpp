// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Messages between two ranks of the virtual cluster, copied when they are sent.

#include <limber/sim/detail/group.hpp>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace limber::sim::detail {

inline void group::send(int rank, int peer, const_tensor_view in) {
  check_in(rank, "send", in.name);
  if (at(peer).left || state_of(peer).death_known) {
    fail(peer, at(peer).left ? text(rank_name(peer), " has left and receives nothing from ", rank_name(rank))
                             : death_message(peer));
    throw failure_error("send", in.name);
  }
  auto const l =
      std::make_shared<tensor_message>(tensor_message{in.type, in.length, {in.data, in.data + in.bytes()}});
  ++at(peer).tensors_in_transit[rank];
  double const taken = engine_->transfer(at(rank).worker, at(peer).worker, in.bytes(),
                                         [self = shared_from_this(), rank, peer, l](bool arrived) {
                                           --self->at(peer).tensors_in_transit[rank];
                                           if (arrived)
                                             self->at(peer).tensor_messages[rank].push_back(std::move(*l));
                                           self->wake(peer);
                                         });
  engine_->wait_until(taken, &worker_report::waiting, "send");
}

inline void group::recv(int rank, int peer, tensor_view out) {
  check_turn(rank, "recv");
  auto& queue = at(rank).tensor_messages[peer];
  while (queue.empty()) {
    bool const none_comes = at(rank).tensors_in_transit[peer] == 0;
    if (!failed_ && none_comes && at(peer).left)
      fail(peer, text(rank_name(peer), " has left and sends nothing to ", rank_name(rank)));
    if (!failed_ && none_comes && state_of(peer).death_known) fail(peer, death_message(peer));
    if (failed_) throw failure_error("recv", out.name);
    engine_->park(&worker_report::waiting, {"recv", out.name, this, 0, peer});
  }
  tensor_message const l = std::move(queue.front());
  queue.pop_front();
  if (l.type != out.type || l.length != out.length) {
    fail(rank, text(rank_name(rank), " receives ", out.length, " ", limber::name_of(out.type), " but ",
                    rank_name(peer), " sent ", l.length, " ", limber::name_of(l.type)));
    throw failure_error("recv", out.name);
  }
  if (!l.bytes.empty()) std::memcpy(out.data, l.bytes.data(), l.bytes.size());
}

/// A message to a rank that has left or died costs the sender as much as any other.
inline void group::post(int rank, int peer, i64 tag, std::span<std::byte const> bytes) {
  check_in(rank, "post", {});
  auto const m = std::make_shared<message>(message{rank, {bytes.begin(), bytes.end()}});
  ++at(peer).mail_in_transit;
  engine_->transfer(at(rank).worker, at(peer).worker, static_cast<i64>(bytes.size()),
                    [self = shared_from_this(), peer, tag, m](bool arrived) {
                      member& to = self->at(peer);
                      --to.mail_in_transit;
                      if (arrived && !to.left && !self->state_of(peer).dead) {
                        to.mailbox[tag].push_back({++to.arrived, std::move(*m)});
                        ++to.unseen;
                      }
                      self->wake(peer);
                    });
}

/// Messages that arrived before the group failed are still delivered.
inline std::optional<message> group::poll(int rank, i64 tag) {
  check_turn(rank, "poll");
  auto& mailbox = at(rank).mailbox;
  auto queue = mailbox.find(tag);
  if (queue == mailbox.end()) {
    check_in(rank, "poll", {});
    engine_->empty_poll({"poll", {}, this, tag, -1});
    queue = mailbox.find(tag);
    if (queue == mailbox.end()) return std::nullopt;
  }
  mailbox_message first = std::move(queue->second.front());
  queue->second.pop_front();
  if (queue->second.empty()) mailbox.erase(queue);
  if (first.number > at(rank).listened_to) --at(rank).unseen;
  return std::move(first.what);
}

inline void group::listen(int rank) {
  check_turn(rank, "listen");
  member& me = at(rank);
  while (me.unseen == 0) {
    check_in(rank, "listen", {});
    if (me.mail_in_transit == 0 && left_count_ + known_deaths_ == size() - 1) {
      fail(rank, text("all others have left or died, and nobody posts to ", rank_name(rank)));
      throw failure_error("listen", {});
    }
    engine_->park(&worker_report::waiting, {"listen", {}, this, 0, -1});
  }
  me.listened_to = me.arrived;
  me.unseen = 0;
}

}  // namespace limber::sim::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Messages between two ranks of the virtual cluster: copied when they are sent, there when they arrive.

#include <limber/sim/detail/group.hpp>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace limber::sim::detail {

inline void group::send(int rank, int peer, const_tensor_view in) {
  check_in(rank, "send", in.name);
  if (at(peer).gone || seat_of(peer).noticed) {
    fail(peer,
         at(peer).gone ? text(who(peer), " has left and receives nothing from ", who(rank)) : obituary(peer));
    throw thrown("send", in.name);
  }
  auto const l = std::make_shared<letter>(letter{in.type, in.length, {in.data, in.data + in.bytes()}});
  ++at(peer).coming[rank];
  double const taken = engine_->ship(at(rank).seat, at(peer).seat, in.bytes(),
                                     [self = shared_from_this(), rank, peer, l](bool arrived) {
                                       --self->at(peer).coming[rank];
                                       if (arrived) self->at(peer).letters[rank].push_back(std::move(*l));
                                       self->wake(peer);
                                     });
  engine_->pass(taken, &worker_report::waiting, "send");
}

inline void group::recv(int rank, int peer, tensor_view out) {
  check_turn(rank, "recv");
  auto& queue = at(rank).letters[peer];
  while (queue.empty()) {
    bool const none_comes = at(rank).coming[peer] == 0;
    if (!failed_ && none_comes && at(peer).gone)
      fail(peer, text(who(peer), " has left and sends nothing to ", who(rank)));
    if (!failed_ && none_comes && seat_of(peer).noticed) fail(peer, obituary(peer));
    if (failed_) throw thrown("recv", out.name);
    engine_->park(&worker_report::waiting, {"recv", out.name, this, 0, peer});
  }
  letter const l = std::move(queue.front());
  queue.pop_front();
  if (l.type != out.type || l.length != out.length) {
    fail(rank, text(who(rank), " receives ", out.length, " ", limber::name_of(out.type), " but ", who(peer),
                    " sent ", l.length, " ", limber::name_of(l.type)));
    throw thrown("recv", out.name);
  }
  if (!l.bytes.empty()) std::memcpy(out.data, l.bytes.data(), l.bytes.size());
}

/// A message to a rank that has left or died costs its sender as much as any other.
inline void group::post(int rank, int peer, i64 tag, std::span<std::byte const> bytes) {
  check_in(rank, "post", {});
  auto const m = std::make_shared<message>(message{rank, {bytes.begin(), bytes.end()}});
  ++at(peer).underway;
  engine_->ship(at(rank).seat, at(peer).seat, static_cast<i64>(bytes.size()),
                [self = shared_from_this(), peer, tag, m](bool arrived) {
                  member& to = self->at(peer);
                  --to.underway;
                  if (arrived && !to.gone && !self->seat_of(peer).dead) {
                    to.boxes[tag].push_back({++to.arrived, std::move(*m)});
                    ++to.fresh;
                  }
                  self->wake(peer);
                });
}

/// What arrived before the group failed is still delivered.
inline std::optional<message> group::poll(int rank, i64 tag) {
  check_turn(rank, "poll");
  auto& boxes = at(rank).boxes;
  auto box = boxes.find(tag);
  if (box == boxes.end()) {
    check_in(rank, "poll", {});
    engine_->in_vain({"poll", {}, this, tag, -1});
    box = boxes.find(tag);
    if (box == boxes.end()) return std::nullopt;
  }
  mail first = std::move(box->second.front());
  box->second.pop_front();
  if (box->second.empty()) boxes.erase(box);
  if (first.number > at(rank).heard) --at(rank).fresh;
  return std::move(first.what);
}

inline void group::listen(int rank) {
  check_turn(rank, "listen");
  member& me = at(rank);
  while (me.fresh == 0) {
    check_in(rank, "listen", {});
    if (me.underway == 0 && gone_ + noticed_ == size() - 1) {
      fail(rank, text("all others have left or died, and nobody posts to ", who(rank)));
      throw thrown("listen", {});
    }
    engine_->park(&worker_report::waiting, {"listen", {}, this, 0, -1});
  }
  me.heard = me.arrived;
  me.fresh = 0;
}

}  // namespace limber::sim::detail

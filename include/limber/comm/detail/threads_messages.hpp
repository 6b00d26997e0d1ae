// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Messages between two ranks of `threads`: both kinds are copied when they are sent.

#include <limber/comm/detail/threads_group.hpp>

#include <cstring>
#include <optional>
#include <span>
#include <utility>

namespace limber::threads::detail {

inline void group::send(int rank, int peer, const_tensor_view in) {
  letter l{in.type, in.length, {in.data, in.data + in.bytes()}};
  visit v(*hub_);
  check_in(v, rank, "send", in.name);
  if (at(peer).gone) {
    fail(v, peer, text(who(peer), " has left and receives nothing from ", who(rank)));
    throw thrown("send", in.name);
  }
  at(peer).letters[rank].push_back(std::move(l));
  if (at(peer).awaits == anything) v.wake(seat_of(peer));
}

inline void group::recv(int rank, int peer, tensor_view out) {
  patience p{hub_->now()};
  visit v(*hub_);
  settle(v, *hub_, at(rank).seat);
  auto& queue = at(rank).letters[peer];
  for (bool late = false; queue.empty(); late = idle(v, rank, anything, p)) {
    if (frozen_ && late) fail(v, culprit_, unexplained());
    if (!frozen_ && at(peer).gone)
      fail(v, peer, text(who(peer), " has left and sends nothing to ", who(rank)));
    if (!frozen_ && late)
      fail(v, peer, text(who(peer), " sent nothing to ", who(rank), " within ", hub_->how.deadline, " s"));
    if (failed_) throw thrown("recv", out.name);
  }
  letter const l = std::move(queue.front());
  queue.pop_front();
  if (l.type != out.type || l.length != out.length) {
    fail(v, rank,
         text(who(rank), " receives ", out.length, " ", limber::name_of(out.type), " but ", who(peer),
              " sent ", l.length, " ", limber::name_of(l.type)));
    throw thrown("recv", out.name);
  }
  v.leave();
  if (!l.bytes.empty()) std::memcpy(out.data, l.bytes.data(), l.bytes.size());
}

inline void group::post(int rank, int peer, i64 tag, std::span<std::byte const> bytes) {
  message m{rank, {bytes.begin(), bytes.end()}};
  visit v(*hub_);
  check_in(v, rank, "post", {});
  if (at(peer).gone) return;
  at(peer).mail[tag].push_back(std::move(m));
  ++at(peer).mailed;
  if (at(peer).awaits == anything) v.wake(seat_of(peer));
}

/// What arrived before the group failed is still delivered.
inline std::optional<message> group::poll(int rank, i64 tag) {
  visit v(*hub_);
  auto& mail = at(rank).mail;
  auto const box = mail.find(tag);
  if (box == mail.end()) {
    check_in(v, rank, "poll", {});
    return std::nullopt;
  }
  std::optional<message> first{std::move(box->second.front())};
  box->second.pop_front();
  if (box->second.empty()) mail.erase(box);
  return first;
}

/// Sleeps until a message arrives that was not there when it last returned.
inline void group::listen(int rank) {
  patience p{hub_->now()};
  visit v(*hub_);
  check_in(v, rank, "listen", {});
  for (bool late = false; at(rank).mailed == at(rank).heard; late = idle(v, rank, anything, p)) {
    if (frozen_ && late) fail(v, culprit_, unexplained());
    if (!frozen_ && gone_ == size() - 1 && !at(rank).gone)
      fail(v, rank, text("all others have left, and nobody posts to ", who(rank)));
    if (!frozen_ && late)
      fail(v, rank, text("nobody posted anything to ", who(rank), " within ", hub_->how.deadline, " s"));
    if (failed_) throw thrown("listen", {});
  }
  at(rank).heard = at(rank).mailed;
}

}  // namespace limber::threads::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Messages of a `gloo` group.

#include <limber/comm/detail/gloo_process_group.hpp>

#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace limber::gloo_engine::detail {

/// Called in the thread of the messages.
inline void process_group::on_event(peer_event e) {
  std::scoped_lock const lock(mutex_);
  if (e.lost) {
    if (!peer(e.peer).left) {
      peer(e.peer).broken = true;
      fail({e.peer, connection_lost(e.peer), 0, true});
    }
    return wake();
  }
  limber::detail::unpacker content(e.bytes);
  switch (e.head.kind) {
    case message_kind::mailbox:
      receive_queue_.put({.source = e.peer, .tag = e.head.tag, .bytes = std::move(e.bytes)});
      break;
    case message_kind::tensor:
      receive_queue_.put(
          {.source = e.peer, .is_tensor = true, .type = e.head.type, .bytes = std::move(e.bytes)});
      break;
    case message_kind::failure: {
      group_failure v;
      v.rank = content.get<int>();
      v.lost = content.get<bool>();
      v.reason = content.get_text();
      fail(std::move(v), false);
      break;
    }
    case message_kind::leave:
      peer(e.peer).left = true;
      peer(e.peer).started = e.head.tag;
      break;
    case message_kind::query: {
      limber::detail::packer p;
      p.put(started_).put(std::string_view(call_text(e.head.tag)));
      connections_.messages->post(e.peer, {.tag = e.head.tag, .kind = message_kind::reply}, p.bytes());
      return;
    }
    case message_kind::reply: {
      i64 const started = content.get<i64>();
      failure_detector_.record_reply(e.peer, e.head.tag, {started, content.get_text()});
      return;
    }
    default: return;  // of message_sockets
  }
  wake();
}

inline void process_group::post(int, int to, i64 tag, std::span<std::byte const> bytes) {
  {
    std::scoped_lock const lock(mutex_);
    check_alive("post");
    if (to == rank_) return receive_queue_.put(limber::detail::stored_message::of(to, tag, bytes));
  }
  connections_.messages->post(to, {.tag = tag}, bytes);
}

/// Messages that arrived before the group failed are still delivered.
inline std::optional<message> process_group::poll(int, i64 tag) {
  std::scoped_lock const lock(mutex_);
  auto m = receive_queue_.take(tag);
  if (!m) check_alive("poll");
  return m;
}

/// Waits for a message that arrived after the last listen() returned.
inline void process_group::listen(int) {
  double const start = how_.clock();
  std::unique_lock lock(mutex_);
  for (;;) {
    check_alive("listen");
    if (receive_queue_.has_new()) break;
    if (all_others_left())
      fail({rank_, size_ == 1 ? "nothing was posted, and nobody else can post"
                              : text("all others have left, and nobody posts to rank ", rank_)});
    else if (how_.clock() - start > how_.deadline)
      fail({rank_, text("nobody posted anything to rank ", rank_, " within ", how_.deadline, " s")});
    else
      sleep(lock);
  }
  receive_queue_.mark_seen();
}

inline void process_group::send(int, int to, const_tensor_view in) {
  {
    std::scoped_lock const lock(mutex_);
    check_alive("send", in.name);
    if (to == rank_) return receive_queue_.put(limber::detail::stored_message::of(to, in));
    if (peer(to).left) {
      fail({to, text("rank ", to, " has left and receives nothing from rank ", rank_)});
      throw failure_error("send", in.name);
    }
  }
  connections_.messages->post(to, {.kind = message_kind::tensor, .type = in.type},
                              {in.data, static_cast<std::size_t>(in.bytes())});
}

inline void process_group::recv(int, int from, tensor_view out) {
  double const start = how_.clock();
  std::unique_lock lock(mutex_);
  std::optional<limber::detail::stored_message> m;
  while (!(m = receive_queue_.take_tensor(from))) {
    check_alive("recv", out.name);
    if (size_ == 1)
      fail({rank_, "nothing was sent, and nobody else can send"});
    else if (from != rank_ && peer(from).left)
      fail({from, text("rank ", from, " has left and sends nothing to rank ", rank_)});
    else if (how_.clock() - start > how_.deadline)
      fail({from, text("rank ", from, " sent nothing to rank ", rank_, " within ", how_.deadline, " s")});
    else
      sleep(lock);
  }
  if (!m->fits(out)) {
    fail({rank_, m->mismatch_text(text("rank ", rank_), out, text("rank ", from))});
    throw failure_error("recv", out.name);
  }
  lock.unlock();
  m->copy_to(out);
}

}  // namespace limber::gloo_engine::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Letters of a `gloo` group, and the messages that users send as such.

#include <limber/comm/detail/gloo_group.hpp>

#include <cstring>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

/// In the postman's thread.
inline void group::receive(int source, letter_head const& head, std::vector<std::byte> bytes) {
  std::scoped_lock const lock(door_);
  limber::detail::unpacker content(bytes);
  switch (head.kind) {
    case letter_kind::mail: shelf_.put(source, head.tag, std::move(bytes)); break;
    case letter_kind::tensor: shelf_.put_parcel(source, {head.type, std::move(bytes)}); break;
    case letter_kind::verdict: {
      verdict v;
      v.rank = content.get<int>();
      v.lost = content.get<bool>();
      v.reason = content.get_text();
      fail(std::move(v), false);
      break;
    }
    case letter_kind::goodbye:
      peer(source).left = true;
      peer(source).started = head.tag;
      break;
    case letter_kind::inquiry: {
      letter_head answer;
      answer.kind = letter_kind::answer;
      answer.tag = head.tag;
      limber::detail::packer p;
      p.put(started_).put(std::string_view(call_text(head.tag)));
      links_.office->post(source, answer, p.bytes());
      return;
    }
    case letter_kind::answer: {
      i64 const started = content.get<i64>();
      watch_.answer(source, head.tag, {started, content.get_text()});
      return;
    }
  }
  wake();
}

/// In the postman's thread.
inline void group::lose(int source) {
  std::scoped_lock const lock(door_);
  if (!peer(source).left) {
    peer(source).broken = true;
    fail({source, connection_lost(source), true});
  }
  wake();
}

inline void group::post(int to, i64 tag, std::span<std::byte const> bytes) {
  {
    std::scoped_lock const lock(door_);
    check_alive("post");
    if (to == rank_) return shelf_.put(to, tag, {bytes.begin(), bytes.end()});
  }
  letter_head head;
  head.tag = tag;
  links_.office->post(to, head, bytes);
}

/// What arrived before the group failed is still delivered.
inline std::optional<message> group::poll(i64 tag) {
  std::scoped_lock const lock(door_);
  auto m = shelf_.take(tag);
  if (!m) check_alive("poll");
  return m;
}

/// Sleeps until a message arrives that was not there when it last returned.
inline void group::listen() {
  double const start = how_.clock();
  std::unique_lock lock(door_);
  for (;;) {
    check_alive("listen");
    if (shelf_.news()) break;
    if (abandoned())
      fail({rank_, size_ == 1 ? "nothing was posted, and nobody else can post"
                              : text("all others have left, and nobody posts to rank ", rank_)});
    else if (how_.clock() - start > how_.deadline)
      fail({rank_, text("nobody posted anything to rank ", rank_, " within ", how_.deadline, " s")});
    else
      sleep(lock);
  }
  shelf_.hear();
}

inline void group::send(const_tensor_view in, int to) {
  std::span<std::byte const> const bytes(in.data, static_cast<std::size_t>(in.bytes()));
  {
    std::scoped_lock const lock(door_);
    check_alive("send", in.name);
    if (to == rank_) return shelf_.put_parcel(to, {in.type, {bytes.begin(), bytes.end()}});
    if (peer(to).left) {
      fail({to, text("rank ", to, " has left and receives nothing from rank ", rank_)});
      throw thrown("send", in.name);
    }
  }
  letter_head head;
  head.kind = letter_kind::tensor;
  head.type = in.type;
  links_.office->post(to, head, bytes);
}

inline void group::recv(tensor_view out, int from) {
  double const start = how_.clock();
  std::unique_lock lock(door_);
  std::optional<parcel> p;
  while (!(p = shelf_.take_parcel(from))) {
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
  if (p->type != out.type || static_cast<i64>(p->bytes.size()) != out.bytes()) {
    fail({rank_, text("rank ", rank_, " receives ", out.length, " ", limber::name_of(out.type), " but rank ",
                      from, " sent ", static_cast<i64>(p->bytes.size()) / size_of(p->type), " ",
                      limber::name_of(p->type))});
    throw thrown("recv", out.name);
  }
  lock.unlock();
  if (!p->bytes.empty()) std::memcpy(out.data, p->bytes.data(), p->bytes.size());
}

}  // namespace limber::gloo::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/signature.hpp>
#include <limber/comm/self.hpp>
#include <limber/core/error.hpp>

#include <cstring>
#include <utility>

namespace limber {

namespace detail {

[[nodiscard]] LIMBER_FN error self_error(std::string_view call, std::string_view bucket, std::string reason) {
  return error({"self", std::string(call), 0, 0, std::string(bucket), std::move(reason)});
}

}  // namespace detail

LIMBER_FN void self::check_alive(std::string_view call, std::string_view bucket) const {
  if (revoked_) throw detail::self_error(call, bucket, *revoked_);
}

LIMBER_FN completed self::copy(std::string_view call, const_tensor_view in, tensor_view out) const {
  check_alive(call, detail::bucket_of(in, out));
  if (out.length > 0) std::memcpy(out.data, in.data, static_cast<std::size_t>(out.bytes()));
  return {};
}

LIMBER_FN completed self::all_reduce(const_tensor_view in, tensor_view out, reduction how) {
  (void)detail::all_reduce_of(in, out, how);
  return copy("all_reduce", in, out);
}
LIMBER_FN completed self::reduce_scatter(const_tensor_view in, tensor_view out) {
  (void)detail::reduce_scatter_of(in, out, 1);
  return copy("reduce_scatter", in, out);
}
LIMBER_FN completed self::all_gather(const_tensor_view in, tensor_view out) {
  (void)detail::all_gather_of(in, out, 1);
  return copy("all_gather", in, out);
}
LIMBER_FN completed self::broadcast(tensor_view data, int root) {
  (void)detail::broadcast_of(data, root, 1);
  check_alive("broadcast", data.name);
  return {};
}
LIMBER_FN void self::barrier() { check_alive("barrier"); }

LIMBER_FN void self::send(const_tensor_view in, int peer) {
  detail::check_memory("send", "in", in, in.name);
  detail::check_rank("send", "peer", peer, 1);
  check_alive("send", in.name);
  pending_sends_.push_back({in.type, in.length, {in.data, in.data + in.bytes()}});
}
LIMBER_FN void self::recv(tensor_view out, int peer) {
  detail::check_memory("recv", "out", out, out.name);
  detail::check_rank("recv", "peer", peer, 1);
  check_alive("recv", out.name);
  if (pending_sends_.empty())
    throw detail::self_error("recv", out.name, "nothing was sent, and nobody else can send");
  pending_send const& first = pending_sends_.front();
  if (first.type != out.type || first.length != out.length)
    throw detail::self_error("recv", out.name,
                             text("rank 0 receives ", out.length, " ", name_of(out.type), " but rank 0 sent ",
                                  first.length, " ", name_of(first.type)));
  if (out.length > 0) std::memcpy(out.data, first.bytes.data(), first.bytes.size());
  pending_sends_.erase(pending_sends_.begin());
}

LIMBER_FN self self::split(int /*color*/) {
  check_alive("split");
  return {};
}

LIMBER_FN void self::revoke(std::string const& reason) {
  if (!revoked_) revoked_ = reason;
}

LIMBER_FN self self::shrink(std::span<int const> lost) const {
  expects(lost.empty(), "self: shrink: the only rank cannot be lost, got ", lost.size(), " lost ranks");
  return {};
}

LIMBER_FN void self::post(int peer, i64 tag, std::span<std::byte const> bytes) {
  detail::check_rank("post", "peer", peer, 1);
  check_alive("post");
  pending_posts_.push_back({tag, {bytes.begin(), bytes.end()}});
}
LIMBER_FN std::optional<message> self::poll(i64 tag) {
  for (auto p = pending_posts_.begin(); p != pending_posts_.end(); ++p) {
    if (p->tag != tag) continue;
    message first{0, std::move(p->bytes)};
    pending_posts_.erase(p);
    return first;
  }
  check_alive("poll");
  return std::nullopt;
}
LIMBER_FN void self::listen() const {
  check_alive("listen");
  if (pending_posts_.empty())
    throw detail::self_error("listen", {}, "nothing was posted, and nobody else can post");
}

}  // namespace limber

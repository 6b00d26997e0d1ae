// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/signature.hpp>
#include <limber/comm/self.hpp>

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
  messages_.put(detail::stored_message::of(0, in));
}
LIMBER_FN void self::recv(tensor_view out, int peer) {
  detail::check_memory("recv", "out", out, out.name);
  detail::check_rank("recv", "peer", peer, 1);
  check_alive("recv", out.name);
  auto const first = messages_.take_tensor(0);
  if (!first) throw detail::self_error("recv", out.name, "nothing was sent, and nobody else can send");
  if (!first->fits(out))
    throw detail::self_error("recv", out.name, first->mismatch_text("rank 0", out, "rank 0"));
  first->copy_to(out);
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
  messages_.put(detail::stored_message::of(0, tag, bytes));
}
LIMBER_FN std::optional<message> self::poll(i64 tag) {
  auto first = messages_.take(tag);
  if (!first) check_alive("poll");
  return first;
}
LIMBER_FN void self::listen() const {
  check_alive("listen");
  if (!messages_.has_message())
    throw detail::self_error("listen", {}, "nothing was posted, and nobody else can post");
}

}  // namespace limber

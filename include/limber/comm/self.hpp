// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of a single worker.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/signature.hpp>

#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace limber {

/// A group of one: rank 0 of 1. Every operation has finished when it returns.
///
/// State    messages to itself (send, post) wait in order until they are received; a group made by
///          split or shrink starts with none.
/// Errors   std::invalid_argument on views that do not fit, as in every engine; limber::error from
///          `recv` if nothing was sent or something else was, and from everything after `revoke`.
/// Choices  models every optional capability, so code written for many workers runs with one.
class self {
 public:
  [[nodiscard]] int rank() const noexcept { return 0; }
  [[nodiscard]] int size() const noexcept { return 1; }

  completed all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return copy(detail::all_reduce_of(in, out, how), in, out);
  }
  completed reduce_scatter(const_tensor_view in, tensor_view out) {
    return copy(detail::reduce_scatter_of(in, out, 1), in, out);
  }
  completed all_gather(const_tensor_view in, tensor_view out) {
    return copy(detail::all_gather_of(in, out, 1), in, out);
  }
  completed broadcast(tensor_view data, int root) {
    (void)detail::broadcast_of(data, root, 1);
    check_alive("broadcast", data.name);
    return {};
  }
  void barrier() { check_alive("barrier"); }

  /// Keeps a copy of `in` until `recv`. @throws std::invalid_argument unless peer is 0
  void send(const_tensor_view in, int peer) {
    detail::check_memory("send", "in", in, in.name);
    detail::check_rank("send", "peer", peer, 1);
    check_alive("send", in.name);
    letters_.push_back({in.type, in.length, {in.data, in.data + in.bytes()}});
  }
  void recv(tensor_view out, int peer) {
    detail::check_memory("recv", "out", out, out.name);
    detail::check_rank("recv", "peer", peer, 1);
    check_alive("recv", out.name);
    if (letters_.empty()) throw failed("recv", out.name, "nothing was sent, and nobody else can send");
    letter const& l = letters_.front();
    if (l.type != out.type || l.length != out.length)
      throw failed("recv", out.name,
                   text("rank 0 receives ", out.length, " ", name_of(out.type), " but rank 0 sent ", l.length,
                        " ", name_of(l.type)));
    if (out.length > 0) std::memcpy(out.data, l.bytes.data(), l.bytes.size());
    letters_.pop_front();
  }

  [[nodiscard]] self split(int /*color*/) {
    check_alive("split");
    return {};
  }

  void revoke(std::string const& reason) {
    if (!revoked_) revoked_ = reason;
  }

  /// A fresh group, also of a revoked one. @throws std::invalid_argument unless `lost` is empty
  [[nodiscard]] self shrink(std::span<int const> lost) const {
    expects(lost.empty(), "self: shrink: the only rank cannot be lost, got ", lost.size(), " lost ranks");
    return {};
  }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    detail::check_rank("post", "peer", peer, 1);
    check_alive("post");
    mail_[tag].push_back({0, {bytes.begin(), bytes.end()}});
  }
  [[nodiscard]] std::optional<message> poll(i64 tag) {
    auto const box = mail_.find(tag);
    if (box == mail_.end()) {
      check_alive("poll");
      return std::nullopt;
    }
    std::optional<message> first{std::move(box->second.front())};
    box->second.pop_front();
    if (box->second.empty()) mail_.erase(box);
    return first;
  }
  /// @throws limber::error if nothing is there, since nobody else can post
  void listen() const {
    check_alive("listen");
    if (mail_.empty()) throw failed("listen", {}, "nothing was posted, and nobody else can post");
  }

 private:
  struct letter {
    dtype type;
    i64 length;
    std::vector<std::byte> bytes;
  };

  [[nodiscard]] static error failed(std::string_view call, std::string_view bucket, std::string reason) {
    return error({"self", std::string(call), 0, 0, std::string(bucket), std::move(reason)});
  }
  void check_alive(std::string_view call, std::string_view bucket = {}) const {
    if (revoked_) throw failed(call, bucket, *revoked_);
  }
  completed copy(detail::signature const& s, const_tensor_view in, tensor_view out) const {
    check_alive(detail::name_of(s.what), detail::bucket_of(in, out));
    if (out.length > 0) std::memcpy(out.data, in.data, static_cast<std::size_t>(out.bytes()));
    return {};
  }

  std::deque<letter> letters_;
  std::map<i64, std::deque<message>> mail_;
  std::optional<std::string> revoked_;
};

static_assert(collective<self> && point_to_point<self> && splittable<self> && mailbox<self>);
static_assert(revocable<self> && shrinkable<self>);

}  // namespace limber

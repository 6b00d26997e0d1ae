// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of a single worker.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/receive_queue.hpp>
#include <limber/core/config.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace limber {

/// A group of one: rank 0 of 1. Every operation has finished when it returns.
///
/// State    messages to itself (send, post) wait in order until they are received; a group made by
///          split or shrink starts with none.
/// Cost     one copy an operation. `recv` and `poll` are linear in the number of older messages that wait.
/// Errors   std::invalid_argument on views that do not fit, as in every engine; limber::error from
///          `recv` if nothing was sent or something else was, and from everything after `revoke`.
/// Choices  models every optional capability, so code written for many workers runs with one.
class self {
 public:
  [[nodiscard]] int rank() const noexcept { return 0; }
  [[nodiscard]] int size() const noexcept { return 1; }

  completed all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum);
  completed reduce_scatter(const_tensor_view in, tensor_view out);
  completed all_gather(const_tensor_view in, tensor_view out);
  completed broadcast(tensor_view data, int root);
  void barrier();

  /// Keeps a copy of `in` until `recv`. @throws std::invalid_argument unless peer is 0
  void send(const_tensor_view in, int peer);
  void recv(tensor_view out, int peer);

  [[nodiscard]] self split(int color);

  void revoke(std::string const& reason);

  /// A fresh group, also of a revoked one. @throws std::invalid_argument unless `lost` is empty
  [[nodiscard]] self shrink(std::span<int const> lost) const;

  void post(int peer, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] std::optional<message> poll(i64 tag);
  /// @throws limber::error if nothing is there, since nobody else can post
  void listen() const;

 private:
  void check_alive(std::string_view call, std::string_view bucket = {}) const;
  completed copy(std::string_view call, const_tensor_view in, tensor_view out) const;

  detail::receive_queue messages_;
  std::optional<std::string> revoked_;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/comm/impl/self.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Messages that have arrived at a rank and were not read yet: of its mailbox, and tensors of `send`.

#include <limber/comm/collective.hpp>
#include <limber/core/config.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace limber::detail {

struct stored_message {
  int source = 0;
  bool is_tensor = false;
  dtype type = dtype::uint8;  ///< of a tensor
  i64 tag = 0;                ///< of a message of the mailbox, as is the next
  i64 number = 0;             ///< of all to this rank, from 1
  std::vector<std::byte> bytes{};

  [[nodiscard]] static stored_message of(int source, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] static stored_message of(int source, const_tensor_view tensor);

  [[nodiscard]] bool fits(tensor_view out) const noexcept;
  /// Why it does not.
  [[nodiscard]] std::string mismatch_text(std::string_view receiver, tensor_view out,
                                          std::string_view sender) const;
  /// @pre it fits
  void copy_to(tensor_view out) const noexcept;
};

class receive_queue {
 public:
  void put(stored_message m);
  /// The first message of the mailbox with this tag.
  [[nodiscard]] std::optional<message> take(i64 tag);
  /// The first tensor of this rank.
  [[nodiscard]] std::optional<stored_message> take_tensor(int source);

  /// A message of the mailbox has arrived since mark_seen().
  [[nodiscard]] bool has_new() const noexcept { return arrived_ != seen_; }
  /// And one such message was not read.
  [[nodiscard]] bool has_unread() const noexcept { return last_number() > seen_; }
  /// The mailbox is not empty.
  [[nodiscard]] bool has_message() const noexcept { return last_number() > 0; }
  void mark_seen() noexcept { seen_ = arrived_; }

 private:
  [[nodiscard]] std::optional<stored_message> take(bool is_tensor, i64 key);
  /// Of the last message of the mailbox that was not read; 0 if there is none.
  [[nodiscard]] i64 last_number() const noexcept;

  std::vector<stored_message> messages_;  ///< in order of arrival, from head_ on
  std::size_t head_ = 0;
  i64 arrived_ = 0, seen_ = 0;
};

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/comm/detail/impl/receive_queue.ipp>
#endif

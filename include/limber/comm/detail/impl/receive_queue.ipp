// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/receive_queue.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <cstring>
#include <utility>

namespace limber::detail {

LIMBER_COLD LIMBER_FN stored_message stored_message::of(int source, i64 tag,
                                                        std::span<std::byte const> bytes) {
  return {source, false, dtype::uint8, tag, 0, {bytes.begin(), bytes.end()}};
}
LIMBER_COLD LIMBER_FN stored_message stored_message::of(int source, const_tensor_view tensor) {
  return {source, true, tensor.type, 0, 0, {tensor.data, tensor.data + tensor.bytes()}};
}
LIMBER_COLD LIMBER_FN bool stored_message::fits(tensor_view out) const noexcept {
  return type == out.type && static_cast<i64>(bytes.size()) == out.bytes();
}
LIMBER_COLD LIMBER_FN std::string stored_message::mismatch_text(std::string_view receiver, tensor_view out,
                                                                std::string_view sender) const {
  return text(receiver, " receives ", out.length, " ", name_of(out.type), " but ", sender, " sent ",
              static_cast<i64>(bytes.size()) / size_of(type), " ", name_of(type));
}
LIMBER_FN void stored_message::copy_to(tensor_view out) const noexcept {
  if (!bytes.empty()) std::memcpy(out.data, bytes.data(), bytes.size());
}

LIMBER_FN void receive_queue::put(stored_message m) {
  if (!m.is_tensor) m.number = ++arrived_;
  messages_.push_back(std::move(m));
}
LIMBER_COLD LIMBER_FN std::optional<message> receive_queue::take(i64 tag) {
  auto m = take(false, tag);
  return m ? std::optional(message{m->source, std::move(m->bytes)}) : std::nullopt;
}
LIMBER_FN std::optional<stored_message> receive_queue::take_tensor(int source) { return take(true, source); }

/// Linear in the number of older messages that wait.
LIMBER_COLD LIMBER_FN std::optional<stored_message> receive_queue::take(bool is_tensor, i64 key) {
  for (std::size_t i = head_; i < messages_.size(); ++i) {
    stored_message const& m = messages_[i];
    if (m.is_tensor != is_tensor || (is_tensor ? i64{m.source} : m.tag) != key) continue;
    std::optional<stored_message> found(std::move(messages_[i]));
    for (; i > head_; --i) messages_[i] = std::move(messages_[i - 1]);
    if (2 * ++head_ > messages_.size()) {
      messages_.erase(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(head_));
      head_ = 0;
    }
    return found;
  }
  return std::nullopt;
}
LIMBER_FN i64 receive_queue::last_number() const noexcept {
  for (std::size_t i = messages_.size(); i > head_; --i)
    if (!messages_[i - 1].is_tensor) return messages_[i - 1].number;
  return 0;
}

}  // namespace limber::detail

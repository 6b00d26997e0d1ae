// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Lists of tensors as host bytes: what is posted to a mailbox.

#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/layout.hpp>
#include <limber/fuse/shared_array.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace limber::sync {

/// A message that consists of a header alone. The bytes are those of `h`.
template <class Header>
[[nodiscard]] std::span<std::byte const> header_bytes(Header const& h) noexcept {
  static_assert(std::is_trivially_copyable_v<Header>);
  return std::as_bytes(std::span(&h, 1));
}

/// A list in memory that an executor works on; sent and received as host bytes behind a header.
///
///     at.exec.each(copy{}, out(m.parts()), in(model));
///     comm.post(peer, tag, m.pack(at.exec, header{…}));             // the sender
///     auto const h = m.unpack<header>(at.exec, received.bytes);     // the receiver; parts() hold the list
///
/// Memory   one copy on the executor's side and one on the host's (the same where the executor is the
///          host), and the bytes of the last message; allocated once.
/// Cost     one copy of the list on the host each way, besides the engine's.
class tensor_message {
 public:
  tensor_message(any_executor& e, layout const& where) : memory_(e.share<std::byte>(where.bytes)) {
    for (auto const& p : where.places)
      parts_.push_back({memory_.device + p.offset, p.length, p.type, p.name});
    message_.resize(header_room + static_cast<std::size_t>(where.bytes));
  }

  /// The list, on the executor's side.
  [[nodiscard]] tensor_list const& parts() const noexcept { return parts_; }

  /// The bytes of the header and the list; valid until the next call. Synchronizes.
  template <class Header>
  [[nodiscard]] std::span<std::byte const> pack(any_executor& e, Header const& h) {
    static_assert(sizeof(Header) <= header_room);
    e.collect(memory_);
    std::memcpy(message_.data(), &h, sizeof h);
    if (memory_.n > 0)
      std::memcpy(message_.data() + header_room, memory_.host, message_.size() - header_room);
    return message_;
  }

  /// Copies the list of a received message to parts(). @return its header
  /// @throws std::invalid_argument if the message is of another length
  template <class Header>
  Header unpack(any_executor& e, std::span<std::byte const> bytes) {
    expects(bytes.size() == message_.size(), "parcel: a message of ", bytes.size(), " bytes instead of ",
            message_.size());
    if (memory_.n > 0) std::memcpy(memory_.host, bytes.data() + header_room, bytes.size() - header_room);
    e.publish(memory_);
    return header_of<Header>(bytes);
  }

  /// The header alone; also of a message that has nothing else.
  /// @throws std::invalid_argument if the message is shorter
  template <class Header>
  [[nodiscard]] static Header header_of(std::span<std::byte const> bytes) {
    static_assert(std::is_trivially_copyable_v<Header>);
    Header h;
    expects(bytes.size() >= sizeof h, "parcel: a message of only ", bytes.size(), " bytes");
    std::memcpy(&h, bytes.data(), sizeof h);
    return h;
  }

  [[nodiscard]] i64 bytes() const noexcept { return memory_.bytes() + static_cast<i64>(message_.size()); }

 private:
  static constexpr std::size_t header_room = 64;

  shared_array<std::byte> memory_;
  tensor_list parts_;
  std::vector<std::byte> message_;
};

}  // namespace limber::sync

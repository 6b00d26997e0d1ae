// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Lists of tensors as host bytes: what travels by mailbox.

#include <limber/core/error.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/layout.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace limber::sync {

/// A list that lies where an executor works on it, and leaves and arrives as host bytes behind a head.
///
///     at.exec.each(copy{}, out(parcel.parts()), in(model));
///     comm.post(peer, tag, parcel.seal(at.exec, head{…}));           // on the one side
///     auto const h = parcel.open<head>(at.exec, message.bytes);      // on the other: parts() hold the list
///
/// Memory   one copy on the executor's side and one on the host's (the same where the executor is the
///          host), and the bytes of the last message; allocated once.
/// Cost     one copy of the list on the host each way, besides the engine's.
template <executor E>
class parcel {
 public:
  parcel(E& e, layout const& where) : memory_(e.template share<std::byte>(where.bytes)) {
    for (auto const& p : where.places)
      parts_.push_back({memory_.device + p.offset, p.length, p.type, p.name});
    letter_.resize(head_bytes + static_cast<std::size_t>(where.bytes));
  }

  /// The list, on the executor's side.
  [[nodiscard]] tensor_list const& parts() const noexcept { return parts_; }

  /// The bytes of `head` and the list; valid until the next call. Synchronizes.
  template <class Head>
  [[nodiscard]] std::span<std::byte const> seal(E& e, Head const& head) {
    static_assert(std::is_trivially_copyable_v<Head> && sizeof(Head) <= head_bytes);
    e.collect(memory_);
    std::memcpy(letter_.data(), &head, sizeof head);
    if (memory_.n > 0) std::memcpy(letter_.data() + head_bytes, memory_.host, letter_.size() - head_bytes);
    return letter_;
  }

  /// Takes the list out of what arrived. @throws std::invalid_argument if it is of another length
  template <class Head>
  Head open(E& e, std::span<std::byte const> bytes) {
    expects(bytes.size() == letter_.size(), "parcel: a message of ", bytes.size(), " bytes instead of ",
            letter_.size());
    if (memory_.n > 0) std::memcpy(memory_.host, bytes.data() + head_bytes, bytes.size() - head_bytes);
    e.publish(memory_);
    return head_of<Head>(bytes);
  }

  /// The head alone; also of a message that has nothing else.
  template <class Head>
  [[nodiscard]] static Head head_of(std::span<std::byte const> bytes) {
    expects(bytes.size() >= sizeof(Head), "parcel: a message of only ", bytes.size(), " bytes");
    Head h;
    std::memcpy(&h, bytes.data(), sizeof h);
    return h;
  }

  [[nodiscard]] i64 bytes() const noexcept { return memory_.bytes() + static_cast<i64>(letter_.size()); }

 private:
  static constexpr std::size_t head_bytes = 64;

  shared_array<std::byte> memory_;
  tensor_list parts_;
  std::vector<std::byte> letter_;
};

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/error.hpp>
#include <limber/sync/tensor_message.hpp>

#include <cstring>

namespace limber::sync {

LIMBER_FN tensor_message::tensor_message(any_executor& e, layout const& where)
    : memory_(e.share<std::byte>(where.bytes)) {
  for (auto const& p : where.places) parts_.push_back({memory_.device + p.offset, p.length, p.type, p.name});
  message_.resize(header_room + static_cast<std::size_t>(where.bytes));
}

LIMBER_FN std::span<std::byte const> tensor_message::pack_behind(any_executor& e,
                                                                 std::span<std::byte const> header) {
  e.collect(memory_);
  std::memcpy(message_.data(), header.data(), header.size());
  if (memory_.n > 0) std::memcpy(message_.data() + header_room, memory_.host, message_.size() - header_room);
  return message_;
}

LIMBER_FN void tensor_message::unpack_list(any_executor& e, std::span<std::byte const> bytes) {
  expects(bytes.size() == message_.size(), "parcel: a message of ", bytes.size(), " bytes instead of ",
          message_.size());
  if (memory_.n > 0) std::memcpy(memory_.host, bytes.data() + header_room, bytes.size() - header_room);
  e.publish(memory_);
}

LIMBER_FN void tensor_message::copy_header(void* to, std::size_t size, std::span<std::byte const> bytes) {
  expects(bytes.size() >= size, "parcel: a message of only ", bytes.size(), " bytes");
  std::memcpy(to, bytes.data(), size);
}

}  // namespace limber::sync

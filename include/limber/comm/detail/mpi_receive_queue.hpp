// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The receive queue of the MPI backend, and the format of its messages: MPI's tags are too short, so each
/// message ends with its tag.

#include <limber/comm/collective.hpp>
#include <limber/core/error.hpp>

#include <cstddef>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::mpi::detail {

/// The transferred bytes: the message, then its tag in the machine's byte order.
/// @throws std::invalid_argument if they are more than MPI can count
[[nodiscard]] inline std::vector<std::byte> with_tag(i64 tag, std::span<std::byte const> bytes) {
  static constexpr std::size_t most = std::numeric_limits<int>::max() - sizeof tag;
  expects(bytes.size() <= most, "post: a message of tag ", tag, " has ", bytes.size(),
          " bytes, the most are ", most);
  std::vector<std::byte> out;
  out.reserve(bytes.size() + sizeof tag);
  out.assign(bytes.begin(), bytes.end());
  auto const* const p = reinterpret_cast<std::byte const*>(&tag);
  out.insert(out.end(), p, p + sizeof tag);
  return out;
}

/// Messages that have arrived and were not polled, in order of arrival per tag.
class receive_queue {
 public:
  /// Adds a message in the transferred format. @throws limber::error if it is too short to have a tag
  void put(int source, std::vector<std::byte> wire) {
    i64 tag = 0;
    if (wire.size() < sizeof tag)
      throw error({"mpi",
                   "poll",
                   0,
                   source,
                   {},
                   text("rank ", source, " sent ", wire.size(),
                        " bytes that this mailbox did not post; nobody else may use its communicator")});
    std::size_t const length = wire.size() - sizeof tag;
    std::memcpy(&tag, wire.data() + length, sizeof tag);
    wire.resize(length);
    messages_[tag].push_back({source, std::move(wire)});
    ++arrived_;
  }
  [[nodiscard]] std::optional<message> take(i64 tag) {
    auto const queue = messages_.find(tag);
    if (queue == messages_.end()) return std::nullopt;
    std::optional<message> first{std::move(queue->second.front())};
    queue->second.pop_front();
    if (queue->second.empty()) messages_.erase(queue);
    return first;
  }
  /// True if messages have arrived since the last call.
  [[nodiscard]] bool has_new() noexcept { return std::exchange(seen_, arrived_) != arrived_; }

 private:
  std::map<i64, std::deque<message>> messages_;
  i64 arrived_ = 0, seen_ = 0;
};

}  // namespace limber::mpi::detail

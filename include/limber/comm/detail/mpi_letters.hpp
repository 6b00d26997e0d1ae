// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The mailbox of the MPI backend, apart from the calls of MPI: MPI's own tags are too short, so each message
/// ends with its tag.

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

/// The bytes on the wire: the message, then its tag in the machine's byte order.
/// @throws std::invalid_argument if MPI could not count them
[[nodiscard]] inline std::vector<std::byte> sealed(i64 tag, std::span<std::byte const> bytes) {
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

/// What has arrived and was not polled, in order of arrival per tag.
class pigeonholes {
 public:
  /// Takes a message as it came. @throws limber::error if it is too short to have a tag
  void sort(int source, std::vector<std::byte> wire) {
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
    mail_[tag].push_back({source, std::move(wire)});
    ++arrived_;
  }
  [[nodiscard]] std::optional<message> take(i64 tag) {
    auto const hole = mail_.find(tag);
    if (hole == mail_.end()) return std::nullopt;
    std::optional<message> first{std::move(hole->second.front())};
    hole->second.pop_front();
    if (hole->second.empty()) mail_.erase(hole);
    return first;
  }
  /// True once for everything that has arrived so far.
  [[nodiscard]] bool anything_new() noexcept { return std::exchange(heard_, arrived_) != arrived_; }

 private:
  std::map<i64, std::deque<message>> mail_;
  i64 arrived_ = 0, heard_ = 0;
};

}  // namespace limber::mpi::detail

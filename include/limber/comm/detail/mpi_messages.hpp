// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the MPI backend has in flight, operations and messages, and the format of messages: MPI's tags are
/// too short, so each message ends with its tag.

#include <limber/comm/detail/mpi_engine.hpp>
#include <limber/comm/detail/receive_queue.hpp>
#include <limber/core/error.hpp>

#include <cstddef>
#include <cstring>
#include <deque>
#include <limits>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::mpi::detail {

/// One operation in flight: one call of MPI, or several if it is divided into pieces.
template <engine E>
struct in_flight_op {
  using request_type = typename E::request_type;

  std::string_view call{}, bucket{};
  request_type first = E::no_request();
  std::vector<request_type> more{};
  std::optional<double> since{};  ///< when waiting began
  bool taken = false;             ///< a request refers to it
  bool over = false;              ///< nothing of it is in flight

  /// Where the next call stores its request.
  [[nodiscard]] request_type& next() {
    return first == E::no_request() ? first : more.emplace_back(E::no_request());
  }
};

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

/// The message in transferred bytes. @throws limber::error if they are too few to have a tag
[[nodiscard]] inline limber::detail::stored_message without_tag(int source, std::vector<std::byte> wire) {
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
  return {.source = source, .tag = tag, .bytes = std::move(wire)};
}

/// A message of the mailbox that is being sent or received.
template <engine E>
struct pending_message {
  int source = 0;
  std::vector<std::byte> bytes{};
  typename E::request_type state = E::no_request();

  [[nodiscard]] bool arrived(E& engine) {
    bool done = false;
    check(engine, engine.test(state, done), "post");
    return done;
  }
};

/// Keeps messages that were in transit when their communicator was destroyed, since MPI still uses their
/// memory.
template <engine E>
class pending_sends {
 public:
  /// Never destroyed, since MPI may outlive static objects.
  [[nodiscard]] static pending_sends& of_process() {
    static auto* const one = new pending_sends;
    return *one;
  }
  void add(E& engine, std::deque<pending_message<E>> messages) {
    std::scoped_lock const lock(mutex_);
    for (auto& l : messages) messages_.push_back(std::move(l));
    remove_completed(engine);
  }
  [[nodiscard]] bool is_empty(E& engine) {
    std::scoped_lock const lock(mutex_);
    remove_completed(engine);
    return messages_.empty();
  }

 private:
  void remove_completed(E& engine) {
    std::erase_if(messages_, [&](pending_message<E>& l) { return l.arrived(engine); });
  }

  std::mutex mutex_;
  std::deque<pending_message<E>> messages_;
};

}  // namespace limber::mpi::detail

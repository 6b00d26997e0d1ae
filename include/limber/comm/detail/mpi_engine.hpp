// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of the MPI backend, the calls of MPI that it uses, as a concept (implemented in mpi.hpp, and in
/// tests by a fake that fails on request), and what it has in flight. MPI's tags are too short, so each
/// message ends with its tag.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/detail/receive_queue.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace limber::mpi::detail {

/// The result of a call.
struct answer {
  int code = 0;  ///< MPI's code; 0 is success
  char const* function = "";

  [[nodiscard]] bool failed() const noexcept { return code != 0; }
};

/// A message that has arrived and was not received yet.
struct arrival {
  bool there = false;
  int source = 0;
  int bytes = 0;
};

/// All calls but `split` and `free` are non-blocking. Handles are values; no_request() and no_comm() are the
/// null handles. Source −1 matches any rank.
///
///     test(q, done)           sets done, and q to no_request(), when the operation has ended
///     probe(c, s, tag, m, a)  takes a message of s with that tag, if there is one, out of MPI's queue
///     take(m, p, n, t, q)     receives it
///     reason(code)            MPI's text
///
/// The calls and their arguments are those of mpi.hpp's driver.
template <class E>
concept engine = std::default_initializable<E> && requires {
  typename E::comm_type;
  typename E::message_type;
  { E::no_request() } -> std::same_as<typename E::request_type>;
};

/// @throws limber::error of engine "mpi" with MPI's code and text, if the call failed
template <class E>
void check(E const& e, answer a, std::string_view call, std::string_view bucket = {}) {
  if (a.failed())
    throw error({"mpi", std::string(call), a.code, -1, std::string(bucket),
                 text(a.function, ": ", e.reason(a.code))});
}

}  // namespace limber::mpi::detail

namespace limber::mpi {

/// Deadlines, and the action at a deadline that MPI cannot handle.
struct options {
  double deadline = 60;                   ///< seconds of `clock` that a call waits for the others, > 0
  clock_function clock = steady_seconds;  ///< on a virtual clock, give a `pause` that lets it advance
  /// Called between polls while a rank waits, so that others can use the core.
  pause_function pause = [] { std::this_thread::yield(); };
  /// Called with the error message when an operation misses its deadline, while MPI still uses its memory;
  /// should not return. Empty: prints to stderr and calls MPI_Abort on the world.
  std::function<void(std::string const&)> fatal{};
  i64 largest_call = i64{1} << 30;  ///< bytes of one MPI call, ≥ 8; longer views are divided
};

namespace detail {

inline void check_options(options const& how) {
  limber::detail::check_waiting("mpi", how.deadline, how.clock, &how.pause);
  expects(how.largest_call >= 8, "mpi: largest_call must be >= 8 bytes, got ", how.largest_call);
}

/// Elements of `type` per call: MPI counts them by an int.
[[nodiscard]] inline i64 piece_of(options const& how, dtype type) noexcept {
  return std::min<i64>(how.largest_call / size_of(type), std::numeric_limits<int>::max());
}

/// Divides [0, length) into pieces: f(first, count), once with count 0 for length 0.
template <class F>
void in_pieces(i64 length, i64 piece, F f) {
  i64 first = 0;
  do {
    i64 const count = std::min(piece, length - first);
    f(first, static_cast<int>(count));
    first += count;
  } while (first < length);
}

}  // namespace detail

}  // namespace limber::mpi

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

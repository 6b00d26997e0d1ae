// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What strategies with a server have in common: requests to it, and which workers still train.

#include <limber/comm/any_communicator.hpp>
#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/sync/tensor_message.hpp>

#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

namespace limber::sync {

/// Tags of requests to a server and of its replies. One strategy with a server at a time can use a
/// collective.
inline constexpr i64 request_tag = 0x5e72'7665;
inline constexpr i64 reply_tag = request_tag + 1;

/// What a worker requests; the first field of the header of every request.
enum class server_request : i64 {
  exchange,  ///< an update by what the message holds
  read,      ///< the server's model alone
  leave,     ///< nothing any more: it has called finish()
};

/// The next message with this tag, however long it takes.
/// @throws limber::error at the collective's deadline, or when nobody is left to write
[[nodiscard]] inline message next_message(communicator comm, i64 tag) {
  for (;;) {
    if (auto m = comm.poll(tag)) return std::move(*m);
    comm.listen();
  }
}

/// The workers as their server knows them: which still train, and how many requests each has made.
class active_workers {
 public:
  /// All ranks but the server train, and none has made a request.
  void start(int size, int server) {
    requests_.assign(static_cast<std::size_t>(size), 0);
    trains_.assign(static_cast<std::size_t>(size), 1);
    trains_[static_cast<std::size_t>(server)] = 0;
  }

  void count_request(int rank) noexcept { ++requests_[static_cast<std::size_t>(rank)]; }
  void leave(int rank) noexcept { trains_[static_cast<std::size_t>(rank)] = 0; }

  /// True while a worker trains.
  [[nodiscard]] bool any() const noexcept {
    for (char const trains : trains_)
      if (trains != 0) return true;
    return false;
  }
  /// Requests by which `rank` is ahead of the slowest worker that still trains.
  [[nodiscard]] i64 lead(int rank) const noexcept {
    i64 least = std::numeric_limits<i64>::max();
    for (std::size_t r = 0; r < requests_.size(); ++r)
      if (trains_[r] != 0 && requests_[r] < least) least = requests_[r];
    i64 const own = requests_[static_cast<std::size_t>(rank)];
    return own > least ? own - least : 0;
  }

  /// At the server's finish(): receives the leave request of every worker from which `serve` has not received
  /// it, so that none is left for a later one.
  /// @throws limber::error if a worker requests anything else
  void receive_leaves(communicator comm) {
    while (any()) {
      message const m = next_message(comm, request_tag);
      if (tensor_message::header_of<server_request>(m.bytes) != server_request::leave)
        throw error({"sync",
                     "finish",
                     0,
                     m.source,
                     {},
                     text("the server has called finish() but rank ", m.source,
                          " still trains; call serve(), which returns when all have finished")});
      leave(m.source);
    }
  }

 private:
  std::vector<i64> requests_;
  std::vector<char> trains_;
};

}  // namespace limber::sync

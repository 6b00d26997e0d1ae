// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What strategies with a server have in common: questions to it, and who still asks.

#include <limber/comm/collective.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::sync {

/// Tags of what workers ask a server, and of what it answers. One strategy with a server at a time can use
/// a collective.
inline constexpr i64 question_tag = 0x5e72'7665;
inline constexpr i64 answer_tag = question_tag + 1;

/// What a worker wants; the first field of every question.
enum class wish : i64 {
  exchange,  ///< an update by what the message holds
  look,      ///< the server's model alone
  leave,     ///< nothing any more: it has called finish()
};

/// A message that is a head and nothing else.
template <class Head>
[[nodiscard]] std::span<std::byte const> only(Head const& head) noexcept {
  static_assert(std::is_trivially_copyable_v<Head>);
  return std::as_bytes(std::span(&head, 1));
}

/// The next message with this tag, however long it takes.
/// @throws limber::error at the collective's deadline, or when nobody is left to write
template <mailbox C>
[[nodiscard]] message next_message(C& comm, i64 tag) {
  for (;;) {
    if (auto m = comm.poll(tag)) return std::move(*m);
    comm.listen();
  }
}

/// The workers as their server knows them: who still trains, and how many questions each has asked.
class roster {
 public:
  void start(int size, int server) {
    asked_.assign(static_cast<std::size_t>(size), 0);
    trains_.assign(static_cast<std::size_t>(size), 1);
    trains_[static_cast<std::size_t>(server)] = 0;
  }

  void ask(int rank) noexcept { ++asked_[static_cast<std::size_t>(rank)]; }
  void leave(int rank) noexcept { trains_[static_cast<std::size_t>(rank)] = 0; }

  [[nodiscard]] bool anybody() const noexcept { return std::ranges::find(trains_, 1) != trains_.end(); }

  /// Questions by which `rank` is ahead of the slowest worker that still trains.
  [[nodiscard]] i64 lead(int rank) const noexcept {
    i64 least = std::numeric_limits<i64>::max();
    for (std::size_t r = 0; r < asked_.size(); ++r)
      if (trains_[r] != 0) least = std::min(least, asked_[r]);
    return std::max<i64>(0, asked_[static_cast<std::size_t>(rank)] - least);
  }

  /// The server calls finish(): every worker's goodbye is taken that `serve` has not taken already, so that
  /// none is left for a later one.
  /// @throws limber::error if a worker wants anything else
  template <mailbox C, class Wish>
  void dismiss(C& comm, Wish const& wish_of) {
    while (anybody()) {
      message const m = next_message(comm, question_tag);
      if (wish_of(m) != wish::leave)
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
  std::vector<i64> asked_;
  std::vector<char> trains_;
};

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One handshake for start, resume, resize and join.

#include <limber/comm/any_communicator.hpp>
#include <limber/core/function_ref.hpp>
#include <limber/core/progress.hpp>
#include <limber/core/state_piece.hpp>
#include <limber/fuse/any_executor.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace limber {

/// Progress as a piece of state.
[[nodiscard]] state_piece progress_piece(progress& now) noexcept;

/// Sets `calls` to the most of all ranks: where each counted its own, none is a joiner afterwards.
void level(communicator comm, i64& calls);

/// Where a rank stands at a handshake: the larger number is further.
///
///     2²⁰ calls + 2 · exchanges completed of the call after them + 1 if a local update of it was made
[[nodiscard]] constexpr i64 position_of(i64 calls, i64 completed, bool committed) noexcept {
  return (calls << 20) + (completed << 1) + (committed ? 1 : 0);
}
[[nodiscard]] constexpr i64 completed_of(i64 position) noexcept { return (position >> 1) & ((1 << 19) - 1); }
/// Of a rank that was interrupted while it took another's state: what it holds is neither old nor new.
inline constexpr i64 invalid_state = -1;

/// One of the optimizers that live on a communicator, in the order in which they were made there; so two that
/// share one are told apart though they train alike. Any thread.
class communicator_user {
 public:
  struct place {
    i64 index = 0;
    i64 count = 1;
  };

  explicit communicator_user(communicator comm);
  communicator_user(communicator_user const&) = delete;
  communicator_user& operator=(communicator_user const&) = delete;
  ~communicator_user();

  /// Leaves the communicator, and is the last that was made on another one, if there is one.
  void move_to(communicator comm);
  /// Which of how many this one is.
  [[nodiscard]] place among_all() const;

 private:
  void const* comm_ = nullptr;
  communicator_user* next_ = nullptr;
};

/// Compares plans and finds out who is furthest; then copies its state to the others, piece by piece.
///
/// The rank with the highest position gives, the lowest of several. `replicated` pieces are sent to all. Of
/// `per_rank` pieces a joiner gets the mean of those who are not joining (counters: the giver's), of
/// `round` pieces zero: it has no part in a round that was open before it came; so of `partial` pieces, whose
/// sum the others keep. Nobody else's change.
/// Not in lockstep  where ranks count calls of their own, only who stands at 0 joins, and a server that does
///              not gives: its copy is the one that counts.
/// Collectives  one all-gather at each end; one broadcast per replicated piece; per per_rank piece one
///              reduction or broadcast, only if somebody joins.
class handshake {
 public:
  /// What this rank trains: a hash for the comparison, and lines of "name: value" for the message where
  /// hashes differ.
  struct description {
    std::uint64_t hash = 0;
    function_ref<std::string()> lines;
    communicator_user::place place{};
  };

  /// @throws limber::error on every rank if plans differ, naming the first rank that differs from 0 and the
  ///         lines in which it does; if ranks use different ones of their optimizers; or if nobody holds a
  ///         whole copy of the state
  handshake(communicator comm, description const& mine, i64 position, bool lockstep = true, int server = -1);

  /// True if this rank takes what others give.
  [[nodiscard]] bool joins() const noexcept { return joins_; }
  /// Who takes, in the order of ranks.
  [[nodiscard]] std::vector<int> const& joined() const noexcept { return joined_; }
  [[nodiscard]] int giver() const noexcept { return giver_; }
  /// Where all stand afterwards.
  [[nodiscard]] i64 position() const noexcept { return position_; }
  /// A number that all ranks have, and no other optimizer of these processes.
  [[nodiscard]] i64 id() const noexcept { return id_; }

  /// Compares a value that must be the same on all ranks, or their models would drift apart.
  /// @throws limber::error on every rank, naming the first rank that differs from rank 0
  void compare(std::string_view what, double value);
  /// Copies one piece. Every rank calls it for the same pieces in the same order.
  void give(any_executor& e, state_piece const& piece);

 private:
  void take_mean(any_executor& e, tensor_view data);
  void take_from_giver(any_executor& e, tensor_view data);
  [[noreturn]] void name_difference(std::size_t rank, std::string const& mine);

  communicator comm_;
  int giver_ = 0;
  int givers_ = 0;
  i64 position_ = 0;
  i64 id_ = 0;
  std::vector<int> joined_;
  bool joins_ = false;
  bool anybody_ = false;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/optimizer/impl/handshake.ipp>
#endif

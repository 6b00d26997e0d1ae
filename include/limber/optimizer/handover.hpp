// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One handshake for start, resume, resize and join.

#include <limber/comm/collective.hpp>
#include <limber/core/error.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/progress.hpp>
#include <limber/core/state_piece.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/functors.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace limber {

/// Progress as a piece of state.
[[nodiscard]] inline state_piece progress_piece(progress& now) noexcept {
  return {"progress",
          kept::alike,
          {reinterpret_cast<std::byte*>(&now), static_cast<i64>(sizeof now), dtype::uint8, {}}};
}

/// Sets `calls` to the most of all ranks: where each counted its own, none is a joiner afterwards.
template <collective C>
void level(C& comm, i64& calls) {
  std::array<i64, 1> mine{calls}, most{};
  comm.all_reduce(const_view(mine, "finish"), view(most, "finish"), reduction::max).wait();
  calls = most[0];
}

/// Where a rank stands at a handshake: the larger number is further.
///
///     2²⁰ calls + 2 · what landed of the call after them + 1 if a local update of it stands
[[nodiscard]] constexpr i64 position_of(i64 calls, i64 landed, bool standing) noexcept {
  return (calls << 20) + (landed << 1) + (standing ? 1 : 0);
}
[[nodiscard]] constexpr i64 landed_of(i64 position) noexcept { return (position >> 1) & ((1 << 19) - 1); }
/// Of a rank that was cut off while it was handed state: what it holds is neither old nor new.
inline constexpr i64 torn = -1;

/// Compares plans and finds out who is furthest; then hands state over, piece by piece.
///
/// The rank with the highest position gives, the lowest of several. `alike` pieces are sent to all. Of
/// `apart` pieces a joiner gets the mean of those who are not joining (counters: the giver's), of
/// `round` pieces zero: it has no part in a round that was open before it came; so of `dealt` pieces, whose
/// sum the others keep. Nobody else's change.
/// Unpaced      where ranks count calls of their own, only who stands at 0 joins, and a server that does not
///              gives: its copy is the one that counts.
/// Collectives  one all-gather at each end; one broadcast per alike piece; per apart piece one reduction or
///              broadcast, only if somebody joins.
template <collective C>
class handover {
 public:
  /// @throws limber::error on every rank if plans differ, naming the first rank that differs from 0; or if
  ///         nobody holds a whole copy of the state
  handover(C& comm, std::uint64_t plan_hash, i64 position, bool paced = true, int server = -1) : comm_(comm) {
    auto const n = static_cast<std::size_t>(comm.size());
    std::array<i64, 2> mine{static_cast<i64>(plan_hash), position};
    std::vector<i64> all(2 * n);
    comm.all_gather(const_view(mine, "meet"), view(all, "meet")).wait();
    i64 most = torn;
    bool begun = false;
    for (std::size_t r = 0; r < n; ++r) {
      if (all[2 * r] != all[0])
        throw error({"optimizer",
                     "meet",
                     0,
                     static_cast<int>(r),
                     {},
                     text("rank ", r,
                          " and rank 0 do not train the same thing: tensor names, lengths or dtypes, "
                          "options, strategy, rule or options differ")});
      begun = begun || all[2 * r + 1] == torn;
      if (all[2 * r + 1] > most) {
        most = all[2 * r + 1];
        giver_ = static_cast<int>(r);
      }
    }
    if (begun && most <= 0)  // of what was begun nothing is left; newcomers alone would train anew
      throw error(
          {"optimizer",
           "meet",
           0,
           -1,
           {},
           "all ranks that had state were cut off while it was handed over, and nobody holds a whole copy; "
           "load a checkpoint"});
    if (server >= 0 && server < comm.size() && all[2 * static_cast<std::size_t>(server) + 1] > 0)
      giver_ = server;
    for (std::size_t r = 0; r < n; ++r)
      if (i64 const p = all[2 * r + 1]; paced ? p < most : p <= 0 && p < most)
        joined_.push_back(static_cast<int>(r));
    position_ = most;
    givers_ = comm.size() - static_cast<int>(joined_.size());
    joins_ = std::ranges::find(joined_, comm.rank()) != joined_.end();
    anybody_ = !joined_.empty();
  }

  /// True if this rank takes what others give.
  [[nodiscard]] bool joins() const noexcept { return joins_; }
  /// Who takes, in the order of ranks.
  [[nodiscard]] std::vector<int> const& joined() const noexcept { return joined_; }
  [[nodiscard]] int giver() const noexcept { return giver_; }
  /// Where all stand afterwards.
  [[nodiscard]] i64 position() const noexcept { return position_; }

  /// Compares a value that must be the same on all ranks, or their models would drift apart.
  /// @throws limber::error on every rank, naming the first rank that differs from rank 0
  void compare(std::string_view what, double value) {
    std::array<double, 1> mine{value};
    std::vector<double> all(static_cast<std::size_t>(comm_.size()));
    comm_.all_gather(const_view(mine, "meet"), view(all, "meet")).wait();
    for (std::size_t r = 1; r < all.size(); ++r)
      if (all[r] != all[0])
        throw error({"optimizer",
                     "meet",
                     0,
                     static_cast<int>(r),
                     {},
                     text(what, " is ", all[0], " on rank 0 and ", all[r], " on rank ", r)});
  }

  /// Hands one piece over. Every rank calls it for the same pieces in the same order.
  template <executor E>
  void give(E& e, state_piece const& piece) {
    tensor_view data = piece.data;
    data.name = piece.name;
    if (data.length == 0) return;
    e.wait(e.record());  // the piece, and memory that was just made, are ready for the collective
    if (piece.how == kept::alike) return comm_.broadcast(data, giver_).wait();
    if (piece.how == kept::round || piece.how == kept::dealt) {
      if (joins_) clear(e, data);
      return;
    }
    if (!anybody_) return;
    if (is_floating(data.type))
      take_mean(e, data);
    else
      take_from_giver(e, data);
  }

 private:
  template <executor E>
  void take_mean(E& e, tensor_view data) {
    tensor_list const list{data};
    layout const where = layout_of(list);
    slab share = e.make(where), mean = e.make(where);
    e.norm(weighted{joins_ ? 0.0 : 1.0 / givers_}, out(share.parts), in(list));
    e.wait(e.record());
    comm_.all_reduce(share.parts[0], mean.parts[0]).wait();
    if (joins_) e.each(copy{}, out(list), in(mean.parts));
  }

  template <executor E>
  static void clear(E& e, tensor_view data) {
    tensor_list const list{data};
    if (is_floating(data.type))
      e.each(zero{}, out(list));
    else
      std::fill_n(data.data, data.bytes(), std::byte{0});
  }

  // Who neither gives nor joins takes part with memory that nobody reads.
  template <executor E>
  void take_from_giver(E& e, tensor_view data) {
    if (joins_ || comm_.rank() == giver_) return comm_.broadcast(data, giver_).wait();
    slab const spare = e.make(layout_of({data}));
    e.wait(e.record());
    comm_.broadcast(spare.parts[0], giver_).wait();
  }

  C& comm_;
  int giver_ = 0;
  int givers_ = 0;
  i64 position_ = 0;
  std::vector<int> joined_;
  bool joins_ = false;
  bool anybody_ = false;
};

}  // namespace limber

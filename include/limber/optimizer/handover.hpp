// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One handshake for start, resume, resize and join.

#include <limber/comm/collective.hpp>
#include <limber/core/error.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/progress.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/functors.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace limber {

/// A piece of state: its name, how it relates to the same piece elsewhere, and its memory.
struct state_piece {
  std::string name;
  kept how = kept::alike;
  tensor_view data;
};

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

/// Compares plans and finds out who is furthest; then hands state over, piece by piece.
///
/// The rank with the most calls gives, the lowest of several. `alike` pieces are sent to all. Of
/// `apart` pieces a joiner gets the mean of those who are not joining (counters: the giver's), of
/// `round` pieces zero: it has no part in a round that was open before it came; so of `dealt` pieces, whose
/// sum the others keep. Nobody else's change.
/// Collectives  one all-gather at each end; one broadcast per alike piece; per apart piece one reduction or
///              broadcast, only if somebody joins.
template <collective C>
class handover {
 public:
  /// @throws limber::error on every rank if plans differ, naming the first rank that differs from 0
  handover(C& comm, std::uint64_t plan_hash, i64 calls) : comm_(comm) {
    auto const n = static_cast<std::size_t>(comm.size());
    std::array<i64, 2> mine{static_cast<i64>(plan_hash), calls};
    std::vector<i64> all(2 * n);
    comm.all_gather(const_view(mine, "meet"), view(all, "meet")).wait();
    i64 most = 0;
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
      if (all[2 * r + 1] > most) {
        most = all[2 * r + 1];
        giver_ = static_cast<int>(r);
      }
    }
    for (std::size_t r = 0; r < n; ++r) givers_ += all[2 * r + 1] == most ? 1 : 0;
    joins_ = calls < most;
    anybody_ = givers_ < comm.size();
  }

  /// True if this rank takes what others give.
  [[nodiscard]] bool joins() const noexcept { return joins_; }

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
  bool joins_ = false;
  bool anybody_ = false;
};

}  // namespace limber

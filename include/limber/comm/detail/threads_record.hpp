// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The operations in flight of one `threads` group.

#include <limber/comm/detail/host_collective.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace limber::threads::detail {

/// One collective operation, from the first arrival to its completion.
struct record {
  i64 sequence = 0;
  limber::detail::signature what{};
  int first = 0;  ///< the rank that arrived first
  int arrived = 0;
  i64 piece = 0;  ///< elements of the result per piece
  i64 pieces = 0, claimed = 0, finished = 0;
  std::vector<limber::detail::rank_buffers> buffers{};  ///< by rank, as are the next two
  std::vector<int> colors{};
  std::vector<char> here{};

  void reset(i64 number, std::size_t ranks) {
    sequence = number;
    arrived = 0;
    piece = pieces = claimed = finished = 0;
    buffers.assign(ranks, {});
    colors.assign(ranks, 0);
    here.assign(ranks, 0);
  }

  /// Cuts the work into pieces of about 256 KiB of traffic.
  void cut() {
    using limber::detail::reduce_tile;
    auto const ranks = static_cast<int>(buffers.size());
    i64 const traffic = 2 * ranks * size_of(what.type);
    piece = std::max<i64>(1, (i64{256} << 10) / traffic / reduce_tile) * reduce_tile;
    pieces = (whole() + piece - 1) / piece;
  }
  void perform(i64 number) const {
    limber::detail::perform(what, buffers, number * piece, std::min((number + 1) * piece, whole()));
  }

 private:
  [[nodiscard]] i64 whole() const noexcept {
    return limber::detail::extent(what, static_cast<int>(buffers.size()));
  }
};

/// Records by number, reused, so that a steady state allocates nothing.
class operation_ring {
 public:
  /// @pre `sequence` was fetched and is not complete
  [[nodiscard]] record& operator[](i64 sequence) noexcept { return *slot(sequence); }

  /// The record of an operation, reset on first access. Grows when more operations are in flight than before;
  /// records are not moved, since ranks may be working on them.
  record& fetch(i64 sequence, i64 completed, std::size_t ranks) {
    if (sequence - completed > static_cast<i64>(slots_.size())) {
      auto old = std::exchange(slots_, make(2 * slots_.size()));
      for (auto& r : old)
        if (r->sequence > completed) slot(r->sequence) = std::move(r);
    }
    record& r = *slot(sequence);
    if (r.sequence != sequence) r.reset(sequence, ranks);
    return r;
  }

 private:
  [[nodiscard]] static std::vector<std::unique_ptr<record>> make(std::size_t n) {
    std::vector<std::unique_ptr<record>> slots(n);
    for (auto& s : slots) s = std::make_unique<record>();
    return slots;
  }
  [[nodiscard]] std::unique_ptr<record>& slot(i64 sequence) noexcept {
    return slots_[static_cast<std::size_t>(sequence) % slots_.size()];
  }

  std::vector<std::unique_ptr<record>> slots_ = make(4);
};

}  // namespace limber::threads::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The operations in flight of one group of the virtual cluster.

#include <limber/comm/detail/host_collective.hpp>

#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

namespace limber::sim::detail {

/// One collective operation, from the first arrival to its end.
struct record {
  limber::detail::signature what{};
  int first = 0;  ///< the rank that arrived first
  int arrived = 0;
  bool performed = false;  ///< all ranks have arrived; results are stored, and valid from `end` on
  double end = 0;
  std::vector<limber::detail::rank_buffers> buffers{};  ///< by rank, as are the next two
  std::vector<int> colors{};
  std::vector<char> here{};

  void reset(std::size_t ranks) {
    first = arrived = 0;
    performed = false;
    end = 0;
    buffers.assign(ranks, {});
    colors.assign(ranks, 0);
    here.assign(ranks, 0);
  }
};

/// Records of incomplete operations, numbered from 1 in the order in which they complete.
class record_list {
 public:
  [[nodiscard]] i64 completed() const noexcept { return completed_; }

  /// nullptr if no rank has started it. @pre not complete
  [[nodiscard]] record* find(i64 sequence) noexcept {
    auto const i = static_cast<std::size_t>(sequence - completed_ - 1);
    return i < open_.size() ? &open_[i] : nullptr;
  }
  /// Creates the record if necessary.
  [[nodiscard]] record& fetch(i64 sequence, std::size_t ranks) {
    while (find(sequence) == nullptr) {
      if (spare_.empty()) spare_.emplace_back();
      open_.push_back(std::move(spare_.back()));
      spare_.pop_back();
      open_.back().reset(ranks);
    }
    return *find(sequence);
  }
  /// Completes all operations that have ended by `time`.
  void advance(double time) {
    while (!open_.empty() && open_.front().performed && open_.front().end <= time) {
      spare_.push_back(std::move(open_.front()));
      open_.pop_front();
      ++completed_;
    }
  }

 private:
  std::deque<record> open_;
  std::vector<record> spare_;
  i64 completed_ = 0;
};

}  // namespace limber::sim::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Determines which rank a blocked `gloo` call is waiting for.

#include <limber/comm/detail/process_group.hpp>
#include <limber/core/config.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace limber::gloo_engine::detail {

using limber::detail::group_call;
using limber::detail::group_failure;
using limber::detail::ranks_text;

/// The progress of a rank.
struct rank_progress {
  i64 started = 0;     ///< calls it has begun
  std::string call{};  ///< the call asked about; empty if the rank has not begun it, or it is too old
  bool left = false;
};

/// Monitors the progress of the calls of one rank. After 0.8 deadlines without progress, it asks for a query
/// of all other ranks; when all have replied, or a tenth of the deadline (at least 0.1 s) has passed, the
/// failure is diagnosed. A rank that does not reply is stopped or out of reach.
class failure_detector {
 public:
  enum class action { wait, query, diagnose };

  explicit failure_detector(int size) : replies_(static_cast<std::size_t>(size)) {}

  /// Call this while no operation runs.
  void reset() noexcept { watching_ = false; }

  /// @param mark  a value that changes with every progress
  /// @param next  the oldest call that has not ended
  action check(double now, double deadline, std::uint64_t mark, i64 next) {
    if (!watching_ || mark != mark_ || next != next_) {
      watching_ = true;
      queried_ = false;
      mark_ = mark;
      next_ = next;
      since_ = now;
      return action::wait;
    }
    if (!queried_ && now - since_ > 0.8 * deadline) {
      queried_ = true;
      queried_at_ = now;
      std::ranges::fill(replies_, std::nullopt);
      return action::query;
    }
    bool const all = std::ranges::all_of(replies_, [](auto const& a) { return a.has_value(); });
    return queried_ && (all || now - queried_at_ > std::max(0.1, 0.1 * deadline)) ? action::diagnose
                                                                                  : action::wait;
  }

  /// The call that the query is about.
  [[nodiscard]] i64 next() const noexcept { return next_; }

  void record_reply(int rank, i64 queried, rank_progress where) {
    if (queried_ && queried == next_) replies_[static_cast<std::size_t>(rank)] = std::move(where);
  }

  /// @param call  what this rank called
  [[nodiscard]] group_failure diagnose(std::string const& call, double deadline) const {
    std::vector<int> silent, behind, left;
    i64 least = next_;
    for (auto const& a : replies_)
      if (a) least = std::min(least, a->started);
    std::map<std::string, int> votes;
    std::string most = call;
    for (std::size_t r = 0; r < replies_.size(); ++r) {
      auto const& a = replies_[r];
      if (!a) silent.push_back(static_cast<int>(r));
      if (!a || a->started >= next_) continue;
      // A rank that is behind does not wait for one that is ahead.
      if (a->started == least) (a->left ? left : behind).push_back(static_cast<int>(r));
    }
    if (!silent.empty())
      return {silent[0], text(ranks_text(silent), silent.size() == 1 ? " does" : " do",
                              " not answer, being stopped or out of reach: ", call, " did not end within ",
                              deadline, " s")};
    if (!left.empty()) return {left[0], text(ranks_text(left), " left without calling ", call)};
    if (!behind.empty())
      return {behind[0], text(ranks_text(behind), " did not call ", call, " within ", deadline, " s")};
    for (auto const& a : replies_)
      if (!a->call.empty() && ++votes[a->call] > votes[most]) most = a->call;
    for (std::size_t r = replies_.size(); r-- > 0;)
      if (!replies_[r]->call.empty() && replies_[r]->call != most)
        return {static_cast<int>(r),
                text("rank ", r, " called ", replies_[r]->call, " where others called ", most)};
    return {-1, text("all ranks are in ", call, ", but there was no progress for ", deadline, " s")};
  }

 private:
  std::vector<std::optional<rank_progress>> replies_;
  bool watching_ = false, queried_ = false;
  std::uint64_t mark_ = 0;
  i64 next_ = 0;
  double since_ = 0, queried_at_ = 0;
};

}  // namespace limber::gloo_engine::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When those who wait outside may begin a generation by themselves.

#include <limber/elastic/detail/ballot.hpp>
#include <limber/elastic/detail/watch.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace limber::elastic::detail {

/// What one joiner knows of the run while generation `behind` is the newest.
///
/// Joiners decide alone where no generation ever began, or where each worker of the last has left or was
/// silent for `dead_after` seconds of this joiner's clock; and then only when the same
/// `min_workers` or more of them were seen to live for `settle` seconds.
class candidacy {
 public:
  /// @param newest  the roster of generation `behind`, unless that is 0
  /// @param what    whether it began, if that is known
  candidacy(i64 behind, std::optional<roster> newest, std::optional<verdict> what)
      : behind_(behind), newest_(std::move(newest)), what_(what), dead_(behind == 0) {
    if (!newest_) return;
    for (std::size_t r = 0; r < newest_->ids.size(); ++r)
      if (what_ != verdict::is_void || newest_->old_ranks[r] >= 0) inside_.push_back(newest_->ids[r]);
    if (!inside_.empty()) return;
    dead_ = true;
    planned_ = newest_->planned;
  }

  [[nodiscard]] i64 behind() const noexcept { return behind_; }
  [[nodiscard]] std::optional<roster> const& newest() const noexcept { return newest_; }
  [[nodiscard]] bool knows_the_verdict() const noexcept { return what_.has_value(); }
  [[nodiscard]] bool may_begin() const noexcept { return dead_; }
  [[nodiscard]] std::size_t able() const noexcept { return able_.size(); }

  /// True when those inside have begun to meet, or nobody is inside: then it is time to come in.
  [[nodiscard]] bool doors_are_open(overview const& o) const {
    auto const& here = o.of(behind_ + 1).here;
    return dead_ || std::any_of(inside_.begin(), inside_.end(),
                                [&](std::string const& id) { return here.contains(id); });
  }

  /// @param read  the last beat of a worker, if there is one
  template <class Read>
  void look_inside(overview const& o, double now, double dead_after, Read&& read) {
    if (inside_.empty()) return;
    auto const& left = o.of(behind_ + 1).left;
    dead_ = true;
    planned_ = true;
    for (std::string const& id : inside_) {
      if (left.contains(id)) continue;
      planned_ = false;
      beats_.see(id, read(id), now);
      if (beats_.silence(id, now) < dead_after) dead_ = false;
    }
  }

  /// @param lives     whether a joiner was seen to live
  /// @param may_live  whether it is too early to say
  template <class Lives, class MayLive>
  [[nodiscard]] std::optional<roster> decision(overview const& o, double now, int min_workers, double settle,
                                               Lives&& lives, MayLive&& may_live) {
    std::set<std::string> able;
    bool clear = true;
    for (std::string const& id : o.of(behind_ + 1).here) {
      if (lives(id))
        able.insert(id);
      else if (may_live(id))
        clear = false;
    }
    if (able != able_ || !counting_) {
      able_ = std::move(able);
      since_ = now;
      counting_ = true;
    }
    if (!clear || able_.size() < static_cast<std::size_t>(min_workers) || now - since_ < settle)
      return std::nullopt;
    roster next;
    next.generation = behind_ + 1;
    next.planned = planned_;
    next.ids.assign(able_.begin(), able_.end());
    next.old_ranks.assign(able_.size(), -1);
    return next;
  }

 private:
  i64 behind_;
  std::optional<roster> newest_;
  std::optional<verdict> what_;
  std::vector<std::string> inside_;
  watch beats_;
  bool dead_, planned_ = true, counting_ = false;
  std::set<std::string> able_;
  double since_ = 0;
};

}  // namespace limber::elastic::detail

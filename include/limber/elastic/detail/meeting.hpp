// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When those who are left of a generation may decide who is in the next.

#include <limber/core/math.hpp>
#include <limber/elastic/detail/ballot.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace limber::elastic::detail {

/// How long the meeting waits for whom; seconds.
struct patience {
  double deadline, grace, suspicion;
};

/// What one survivor sees of the meeting after a generation ended, or turned out to be void: then those
/// who were to join in it are joiners again.
///
/// It closes when each survivor is here, has left, or is suspected by one who is here and has not
/// come for `suspicion` seconds; or when those who are here have waited long enough: `grace` seconds if one
/// of them has waited for a deadline already, else `deadline` seconds. Joiners that wait at the door get
/// `grace` seconds from the opening to come in.
class meeting {
 public:
  meeting(roster const& ended, verdict was, patience limits)
      : generation_(ended.generation + 1),
        planned_(was == verdict::begun || ended.planned),
        was_(was),
        limits_(limits) {
    for (std::size_t r = 0; r < ended.ids.size(); ++r) {
      int const rank = static_cast<int>(r);
      int const old_rank = was == verdict::begun ? rank : ended.old_ranks[r];
      if (old_rank >= 0) old_.push_back({ended.ids[r], rank, old_rank});
      if (old_rank >= 0) insiders_.insert(ended.ids[r]);
    }
  }

  /// @param read  what a survivor said when it came, or nothing if that makes no sense
  template <class Read>
  void see(overview::generation const& next, std::set<std::string> const& waiting, double now, Read&& read) {
    left_ = next.left;
    joiners_.clear();
    all_joiners_are_here_ = std::all_of(waiting.begin(), waiting.end(), [&](std::string const& id) {
      return next.here.contains(id) || insiders_.contains(id);
    });
    for (std::string const& id : next.here) {
      if (!insiders_.contains(id)) {
        if (!left_.contains(id)) joiners_.push_back(id);
      } else if (!survivors_.contains(id)) {
        if (auto said = read(id)) survivors_.emplace(id, attendee{*std::move(said), now});
      }
    }
  }

  /// The decision, if it may be taken now.
  [[nodiscard]] std::optional<roster> decision(double now) const {
    double opened = std::numeric_limits<double>::infinity(), latest = opened;
    for (auto const& [id, who] : survivors_) {
      opened = math::min(opened, who.since);
      latest = math::min(latest,
                         who.since + (who.said.why == ending::deadline ? limits_.grace : limits_.deadline));
    }
    bool const ready = all_joiners_are_here_ || now >= opened + limits_.grace;
    if (!((accounted_for(now) && ready) || now >= latest)) return std::nullopt;
    return composed();
  }

 private:
  struct insider {
    std::string id;
    int rank, old_rank;
  };
  struct attendee {
    presence said;
    double since;
  };

  [[nodiscard]] bool accounted_for(double now) const {
    std::set<int> gone;
    for (auto const& [id, who] : survivors_)
      if (now >= who.since + limits_.suspicion)
        gone.insert(who.said.suspects.begin(), who.said.suspects.end());
    return std::all_of(old_.begin(), old_.end(), [&](insider const& i) {
      return survivors_.contains(i.id) || left_.contains(i.id) || gone.contains(i.rank);
    });
  }

  [[nodiscard]] roster composed() const {
    roster next;
    next.generation = generation_;
    next.planned = planned_;
    for (insider const& i : old_) {
      if (left_.contains(i.id)) continue;
      auto const at = survivors_.find(i.id);
      if (at == survivors_.end()) {
        next.planned = false;
        continue;
      }
      if (was_ == verdict::begun && at->second.said.why != ending::planned) next.planned = false;
      next.ids.push_back(i.id);
      next.old_ranks.push_back(i.old_rank);
    }
    for (std::string const& id : joiners_) {
      next.ids.push_back(id);
      next.old_ranks.push_back(-1);
    }
    return next;
  }

  i64 generation_;
  bool planned_;
  verdict was_;
  patience limits_;
  std::vector<insider> old_;
  std::set<std::string> insiders_;
  std::map<std::string, attendee> survivors_;
  std::set<std::string> left_;
  std::vector<std::string> joiners_;
  bool all_joiners_are_here_ = true;
};

}  // namespace limber::elastic::detail

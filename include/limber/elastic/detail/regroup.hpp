// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When the survivors of a generation may decide on the next one.

#include <limber/core/math.hpp>
#include <limber/elastic/detail/membership_records.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace limber::elastic::detail {

/// How long survivors wait for other workers; seconds.
struct regroup_limits {
  double deadline, grace, suspicion;
};

/// What one survivor knows of the workers that register for the generation after `ended`. If `ended` was
/// void, the workers that were to join in it are joiners again.
///
/// A decision is possible when each old member is registered, has left, or is suspected by a registered one
/// and did not register for `suspicion` seconds; or when the registered ones have waited long enough: `grace`
/// seconds if one of them has already waited for a deadline, else `deadline` seconds. Joiners that wait to be
/// admitted get `grace` seconds from the first registration to register.
class regroup {
 public:
  regroup(membership_view const& ended, generation_state state, regroup_limits limits)
      : generation_(ended.generation + 1),
        planned_(state == generation_state::begun || ended.planned),
        state_(state),
        limits_(limits) {
    for (std::size_t r = 0; r < ended.ids.size(); ++r) {
      int const rank = static_cast<int>(r);
      int const old_rank = state == generation_state::begun ? rank : ended.old_ranks[r];
      if (old_rank >= 0) old_members_.push_back({ended.ids[r], rank, old_rank});
      if (old_rank >= 0) old_ids_.insert(ended.ids[r]);
    }
  }

  /// @param read  returns the presence that a survivor registered, empty if it is unreadable
  template <class Read>
  void observe(overview::generation const& next, std::set<std::string> const& waiting, double now,
               Read&& read) {
    left_ = next.left;
    joiners_.clear();
    all_joiners_are_here_ = std::all_of(waiting.begin(), waiting.end(), [&](std::string const& id) {
      return next.here.contains(id) || old_ids_.contains(id);
    });
    for (std::string const& id : next.here) {
      if (!old_ids_.contains(id)) {
        if (!left_.contains(id)) joiners_.push_back(id);
      } else if (!survivors_.contains(id)) {
        if (auto p = read(id)) survivors_.emplace(id, survivor{*std::move(p), now});
      }
    }
  }

  /// The next generation, if it can be decided now.
  [[nodiscard]] std::optional<membership_view> decision(double now) const {
    double first = std::numeric_limits<double>::infinity(), latest = first;
    for (auto const& [id, s] : survivors_) {
      first = math::min(first, s.since);
      latest = math::min(latest,
                         s.since + (s.registered.why == ending::deadline ? limits_.grace : limits_.deadline));
    }
    bool const joiners_done = all_joiners_are_here_ || now >= first + limits_.grace;
    if (!((accounted_for(now) && joiners_done) || now >= latest)) return std::nullopt;
    return next_view();
  }

 private:
  struct old_member {
    std::string id;
    int rank, old_rank;
  };
  struct survivor {
    presence registered;
    double since;
  };

  [[nodiscard]] bool accounted_for(double now) const {
    std::set<int> suspected;
    for (auto const& [id, s] : survivors_)
      if (now >= s.since + limits_.suspicion)
        suspected.insert(s.registered.suspects.begin(), s.registered.suspects.end());
    return std::all_of(old_members_.begin(), old_members_.end(), [&](old_member const& m) {
      return survivors_.contains(m.id) || left_.contains(m.id) || suspected.contains(m.rank);
    });
  }

  [[nodiscard]] membership_view next_view() const {
    membership_view next;
    next.generation = generation_;
    next.planned = planned_;
    for (old_member const& m : old_members_) {
      if (left_.contains(m.id)) continue;
      auto const at = survivors_.find(m.id);
      if (at == survivors_.end()) {
        next.planned = false;
        continue;
      }
      if (state_ == generation_state::begun && at->second.registered.why != ending::planned)
        next.planned = false;
      next.ids.push_back(m.id);
      next.old_ranks.push_back(m.old_rank);
    }
    for (std::string const& id : joiners_) {
      next.ids.push_back(id);
      next.old_ranks.push_back(-1);
    }
    return next;
  }

  i64 generation_;
  bool planned_;
  generation_state state_;
  regroup_limits limits_;
  std::vector<old_member> old_members_;
  std::set<std::string> old_ids_;
  std::map<std::string, survivor> survivors_;
  std::set<std::string> left_;
  std::vector<std::string> joiners_;
  bool all_joiners_are_here_ = true;
};

}  // namespace limber::elastic::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When the next generation may be decided: by survivors of the last one, and by joiners without any.

#include <limber/core/math.hpp>
#include <limber/elastic/detail/membership_records.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
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

enum class pulse : std::uint8_t { alive, unknown, dead };

/// Observes heartbeats: texts that change as long as their writers live. Clocks of different machines are
/// never compared; a heartbeat counts from the time at which its change was observed here.
class failure_detector {
 public:
  /// @param heartbeat  what was read for `id` just now; empty if there was no entry
  void observe(std::string const& id, std::optional<std::string> const& heartbeat, double now) {
    auto const [at, first] =
        seen_.try_emplace(id, observation{heartbeat.value_or(std::string()), now, false});
    if (first || !heartbeat || *heartbeat == at->second.heartbeat) return;
    at->second = {*heartbeat, now, true};
  }

  /// Whether `id` lives, by the last `seconds`: unknown while its heartbeat was observed once only.
  [[nodiscard]] pulse pulse_of(std::string const& id, double now, double seconds) const {
    auto const at = seen_.find(id);
    if (at == seen_.end()) return pulse::unknown;
    if (now - at->second.when > seconds) return pulse::dead;
    return at->second.changed ? pulse::alive : pulse::unknown;
  }

  /// Seconds since the heartbeat of `id` last changed, or was first observed.
  [[nodiscard]] double silence(std::string const& id, double now) const {
    auto const at = seen_.find(id);
    return at == seen_.end() ? 0 : now - at->second.when;
  }

  /// Forgets all ids but these.
  void retain(std::set<std::string> const& ids) {
    std::erase_if(seen_, [&](auto const& one) { return !ids.contains(one.first); });
  }

 private:
  struct observation {
    std::string heartbeat;
    double when;
    bool changed;
  };
  std::map<std::string, observation> seen_;
};

/// What one joiner knows about the run while `latest_generation` is the latest decided generation.
///
/// Joiners decide on the next generation by themselves if no generation ever began, or if each member of the
/// latest one has left or has sent no heartbeat for `dead_after` seconds of this joiner's clock; and only
/// after the same set of at least `min_workers` live joiners was observed for `settle` seconds.
class bootstrap {
 public:
  /// @param latest_view  the membership of `latest_generation`, unless that is 0
  /// @param state        whether that generation began, if known
  bootstrap(i64 latest_generation, std::optional<membership_view> latest_view,
            std::optional<generation_state> state)
      : latest_generation_(latest_generation),
        latest_view_(std::move(latest_view)),
        state_(state),
        run_is_dead_(latest_generation == 0) {
    if (!latest_view_) return;
    for (std::size_t r = 0; r < latest_view_->ids.size(); ++r)
      if (state_ != generation_state::is_void || latest_view_->old_ranks[r] >= 0)
        members_.push_back(latest_view_->ids[r]);
    if (!members_.empty()) return;
    run_is_dead_ = true;
    planned_ = latest_view_->planned;
  }

  [[nodiscard]] i64 latest_generation() const noexcept { return latest_generation_; }
  [[nodiscard]] std::optional<membership_view> const& latest_view() const noexcept { return latest_view_; }
  [[nodiscard]] bool knows_state() const noexcept { return state_.has_value(); }
  [[nodiscard]] bool may_bootstrap() const noexcept { return run_is_dead_; }
  [[nodiscard]] std::size_t eligible() const noexcept { return eligible_.size(); }

  /// True if a member has started to regroup, or the run is dead: then this joiner registers for the next
  /// generation.
  [[nodiscard]] bool may_join(overview const& o) const {
    auto const& here = o.of(latest_generation_ + 1).here;
    return run_is_dead_ || std::any_of(members_.begin(), members_.end(),
                                       [&](std::string const& id) { return here.contains(id); });
  }

  /// Updates whether the run is dead. @param read  returns the last heartbeat of a worker, if there is one
  template <class Read>
  void observe_members(overview const& o, double now, double dead_after, Read&& read) {
    if (members_.empty()) return;
    auto const& left = o.of(latest_generation_ + 1).left;
    run_is_dead_ = true;
    planned_ = true;
    for (std::string const& id : members_) {
      if (left.contains(id)) continue;
      planned_ = false;
      heartbeats_.observe(id, read(id), now);
      if (heartbeats_.silence(id, now) < dead_after) run_is_dead_ = false;
    }
  }

  /// The next generation, if it can be decided now.
  /// @param pulse_of  of a joiner
  template <class PulseOf>
  [[nodiscard]] std::optional<membership_view> decision(overview const& o, double now, int min_workers,
                                                        double settle, PulseOf&& pulse_of) {
    std::set<std::string> eligible;
    bool all_known = true;
    for (std::string const& id : o.of(latest_generation_ + 1).here) {
      pulse const p = pulse_of(id);
      if (p == pulse::alive) eligible.insert(id);
      if (p == pulse::unknown) all_known = false;
    }
    if (eligible != eligible_ || !settling_) {
      eligible_ = std::move(eligible);
      since_ = now;
      settling_ = true;
    }
    if (!all_known || eligible_.size() < static_cast<std::size_t>(min_workers) || now - since_ < settle)
      return std::nullopt;
    membership_view next;
    next.generation = latest_generation_ + 1;
    next.planned = planned_;
    next.ids.assign(eligible_.begin(), eligible_.end());
    next.old_ranks.assign(eligible_.size(), -1);
    return next;
  }

 private:
  i64 latest_generation_;
  std::optional<membership_view> latest_view_;
  std::optional<generation_state> state_;
  std::vector<std::string> members_;
  failure_detector heartbeats_;
  bool run_is_dead_, planned_ = true, settling_ = false;
  std::set<std::string> eligible_;
  double since_ = 0;
};

}  // namespace limber::elastic::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When the next generation may be decided: by survivors of the last one, and by joiners without any.

#include <limber/core/math.hpp>
#include <limber/elastic/detail/membership_options.hpp>
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

/// What one survivor knows of the workers that register for the generation after `ended`, to decide as
/// `membership` says. If `ended` was void, the workers that were to join in it are joiners again. Joiners
/// that wait to be admitted get `grace` seconds from the first registration to register.
class regroup {
 public:
  regroup(membership_view const& ended, generation_state state, membership_options const& how)
      : generation_(ended.generation + 1),
        planned_(state == generation_state::begun || ended.planned),
        state_(state),
        how_(how) {
    for (std::size_t r = 0; r < ended.ids.size(); ++r) {
      int const rank = static_cast<int>(r);
      int const old_rank = state == generation_state::begun ? rank : ended.old_ranks[r];
      if (old_rank >= 0) old_members_.push_back({ended.ids[r], rank, old_rank});
      if (old_rank >= 0) old_ids_.insert(ended.ids[r]);
    }
  }

  /// The next generation, if it can be decided now.
  /// @param read  returns the presence that a survivor registered, empty if it is unreadable
  template <class Read>
  [[nodiscard]] std::optional<membership_view> decision(overview::generation const& next,
                                                        std::set<std::string> const& waiting, double now,
                                                        Read&& read) {
    for (std::string const& id : next.here)
      if (old_ids_.contains(id) && !survivors_.contains(id))
        if (auto p = read(id)) survivors_.emplace(id, survivor{*std::move(p), now});
    double first = std::numeric_limits<double>::infinity(), latest = first;
    for (auto const& [id, s] : survivors_) {
      first = math::min(first, s.since);
      latest =
          math::min(latest, s.since + (s.registered.why == ending::deadline ? how_.grace : how_.deadline));
    }
    bool const joiners_done =
        now >= first + how_.grace || std::ranges::all_of(waiting, [&](std::string const& id) {
          return next.here.contains(id) || old_ids_.contains(id);
        });
    if (!((accounted_for(next, now) && joiners_done) || now >= latest)) return std::nullopt;
    return view_of(next);
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

  [[nodiscard]] bool accounted_for(overview::generation const& next, double now) const {
    std::set<int> suspected;
    for (auto const& [id, s] : survivors_)
      if (now >= s.since + how_.suspicion)
        suspected.insert(s.registered.suspects.begin(), s.registered.suspects.end());
    return std::ranges::all_of(old_members_, [&](old_member const& m) {
      return survivors_.contains(m.id) || next.left.contains(m.id) || suspected.contains(m.rank);
    });
  }

  [[nodiscard]] membership_view view_of(overview::generation const& said) const {
    membership_view next;
    next.generation = generation_;
    next.planned = planned_;
    for (old_member const& m : old_members_) {
      if (said.left.contains(m.id)) continue;
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
    for (std::string const& id : said.here) {
      if (old_ids_.contains(id) || said.left.contains(id)) continue;
      next.ids.push_back(id);
      next.old_ranks.push_back(-1);
    }
    return next;
  }

  i64 generation_;
  bool planned_;
  generation_state state_;
  membership_options const& how_;
  std::vector<old_member> old_members_;
  std::set<std::string> old_ids_;
  std::map<std::string, survivor> survivors_;
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

/// What one joiner knows about the run while `latest_generation` is the latest decided generation. It decides
/// by itself as `membership` says, and only after the same set of at least `min_workers` live joiners was
/// observed for `settle` seconds.
struct bootstrap {
  i64 latest_generation;
  std::optional<membership_view> latest_view;  ///< of `latest_generation`, unless that is 0
  std::optional<generation_state> state;       ///< whether that generation began, if known
  bool run_is_dead = false;
  std::set<std::string> eligible{};

  bootstrap(i64 latest, std::optional<membership_view> view, std::optional<generation_state> known)
      : latest_generation(latest), latest_view(std::move(view)), state(known), run_is_dead(latest == 0) {
    if (!latest_view) return;
    for (std::size_t r = 0; r < latest_view->ids.size(); ++r)
      if (state != generation_state::is_void || latest_view->old_ranks[r] >= 0)
        members_.push_back(latest_view->ids[r]);
    if (!members_.empty()) return;
    run_is_dead = true;
    planned_ = latest_view->planned;
  }

  /// True if a member has started to regroup, or the run is dead: then this joiner registers for the next
  /// generation.
  [[nodiscard]] bool may_join(overview const& o) const {
    auto const& here = o.of(latest_generation + 1).here;
    return run_is_dead ||
           std::ranges::any_of(members_, [&](std::string const& id) { return here.contains(id); });
  }

  /// Updates whether the run is dead. @param read  returns the last heartbeat of a worker, if there is one
  template <class Read>
  void observe_members(overview const& o, double now, double dead_after, Read&& read) {
    if (members_.empty()) return;
    auto const& left = o.of(latest_generation + 1).left;
    run_is_dead = true;
    planned_ = true;
    for (std::string const& id : members_) {
      if (left.contains(id)) continue;
      planned_ = false;
      heartbeats_.observe(id, read(id), now);
      if (heartbeats_.silence(id, now) < dead_after) run_is_dead = false;
    }
  }

  /// The next generation, if it can be decided now.
  /// @param pulse_of  of a joiner
  template <class PulseOf>
  [[nodiscard]] std::optional<membership_view> decision(overview const& o, double now, int min_workers,
                                                        double settle, PulseOf&& pulse_of) {
    std::set<std::string> alive;
    bool all_known = true;
    for (std::string const& id : o.of(latest_generation + 1).here) {
      pulse const p = pulse_of(id);
      if (p == pulse::alive) alive.insert(id);
      if (p == pulse::unknown) all_known = false;
    }
    if (alive != eligible || !since_) {
      eligible = std::move(alive);
      since_ = now;
    }
    if (!all_known || eligible.size() < static_cast<std::size_t>(min_workers) || now - *since_ < settle)
      return std::nullopt;
    membership_view next;
    next.generation = latest_generation + 1;
    next.planned = planned_;
    next.ids.assign(eligible.begin(), eligible.end());
    next.old_ranks.assign(eligible.size(), -1);
    return next;
  }

 private:
  std::vector<std::string> members_;
  failure_detector heartbeats_;
  bool planned_ = true;
  std::optional<double> since_;  // `eligible` has not changed
};

}  // namespace limber::elastic::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Which workers are alive, as one observer can tell by its own clock.

#include <limber/core/math.hpp>

#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace limber::elastic::detail {

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

  /// True if the heartbeat of `id` changed within the last `seconds`.
  [[nodiscard]] bool is_alive(std::string const& id, double now, double seconds) const {
    auto const at = seen_.find(id);
    return at != seen_.end() && at->second.changed && now - at->second.when <= seconds;
  }

  /// True if the heartbeat of `id` never changed, but was first observed at most `seconds` ago.
  [[nodiscard]] bool is_unknown(std::string const& id, double now, double seconds) const {
    auto const at = seen_.find(id);
    return at == seen_.end() || (!at->second.changed && now - at->second.when <= seconds);
  }

  /// Seconds since the heartbeat of `id` last changed, or was first observed.
  [[nodiscard]] double silence(std::string const& id, double now) const {
    auto const at = seen_.find(id);
    return at == seen_.end() ? 0 : now - at->second.when;
  }

  /// Forgets all ids but these.
  void retain(std::set<std::string> const& ids) {
    for (auto at = seen_.begin(); at != seen_.end();)
      at = ids.contains(at->first) ? std::next(at) : seen_.erase(at);
  }

 private:
  struct observation {
    std::string heartbeat;
    double when;
    bool changed;
  };
  std::map<std::string, observation> seen_;
};

/// Measures a wait by the time for which the waiter was running: a process that was stopped for an hour has
/// not waited for an hour, and reads the store again before it times out.
class wait_timer {
 public:
  /// @param longest  seconds; a longer interval between two calls of `waited` counts as `longest`
  wait_timer(double now, double longest) : last_(now), longest_(longest) {}

  /// Seconds waited until `now`.
  [[nodiscard]] double waited(double now) {
    total_ += math::min(now - last_, longest_);
    last_ = now;
    return total_;
  }

 private:
  double last_, longest_, total_ = 0;
};

}  // namespace limber::elastic::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Who lives, as one observer can tell by its own clock.

#include <limber/core/math.hpp>

#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace limber::elastic::detail {

/// Watches texts that change as long as their writers live. Clocks of different machines are never
/// compared: what counts is when a change was seen here.
class watch {
 public:
  /// What was read for `id` just now; nothing if nothing stands there.
  void see(std::string const& id, std::optional<std::string> const& beat, double now) {
    auto const [at, first] = seen_.try_emplace(id, sign{beat.value_or(std::string()), now, false});
    if (first || !beat || *beat == at->second.beat) return;
    at->second = {*beat, now, true};
  }

  /// True if `id` was seen to change in the last `seconds`.
  [[nodiscard]] bool lives(std::string const& id, double now, double seconds) const {
    auto const at = seen_.find(id);
    return at != seen_.end() && at->second.changed && now - at->second.when <= seconds;
  }

  /// True if `id` was never seen to change, and is not watched for more than `seconds` yet.
  [[nodiscard]] bool may_live(std::string const& id, double now, double seconds) const {
    auto const at = seen_.find(id);
    return at == seen_.end() || (!at->second.changed && now - at->second.when <= seconds);
  }

  /// Seconds since `id` last changed, or was first looked at.
  [[nodiscard]] double silence(std::string const& id, double now) const {
    auto const at = seen_.find(id);
    return at == seen_.end() ? 0 : now - at->second.when;
  }

  /// Forgets all but these.
  void keep(std::set<std::string> const& ids) {
    for (auto at = seen_.begin(); at != seen_.end();)
      at = ids.contains(at->first) ? std::next(at) : seen_.erase(at);
  }

 private:
  struct sign {
    std::string beat;
    double when;
    bool changed;
  };
  std::map<std::string, sign> seen_;
};

/// Measures a wait by the time that the waiter was awake: who was stopped for an hour has not waited for
/// one, and looks again before it gives up.
class patience_clock {
 public:
  /// @param longest  seconds between two looks of which all are counted
  patience_clock(double now, double longest) : last_(now), longest_(longest) {}

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

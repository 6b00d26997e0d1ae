// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The event queue of the virtual cluster.

#include <limber/core/config.hpp>
#include <limber/core/fingerprint.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::sim::detail {

/// At equal times, events of links and deaths precede those of workers: a worker that polls at the arrival
/// time of a message finds it.
enum class phase : std::uint8_t { cluster, worker };

struct event {
  double time = 0;
  phase when = phase::cluster;
  int worker = 0;
  i64 sequence = 0;
  std::function<void()> act{};  ///< empty: gives the worker its turn
};

/// Events by (time, phase, worker, order of planning); hashes the trace of the events taken from it.
class event_queue {
 public:
  void plan(double time, phase when, int worker, std::function<void()> act = {}) {
    events_.push_back({time, when, worker, planned_++, std::move(act)});
    std::ranges::push_heap(events_, later);
  }
  [[nodiscard]] bool empty() const noexcept { return events_.empty(); }

  /// @pre not empty
  [[nodiscard]] event next() {
    std::ranges::pop_heap(events_, later);
    event e = std::move(events_.back());
    events_.pop_back();
    ++taken_;
    trace_.mix(e.time);
    trace_.mix((e.sequence << 1) | static_cast<i64>(e.when));
    trace_.mix(i64{e.worker});
    return e;
  }

  void clear() noexcept { events_.clear(); }

  void mix(std::string_view series, double value) noexcept {
    trace_.mix(series);
    trace_.mix(value);
  }
  [[nodiscard]] i64 taken() const noexcept { return taken_; }
  [[nodiscard]] std::uint64_t trace() const noexcept { return trace_.value(); }

 private:
  [[nodiscard]] static bool later(event const& a, event const& b) noexcept {
    if (a.time != b.time) return a.time > b.time;
    if (a.when != b.when) return a.when > b.when;
    if (a.worker != b.worker) return a.worker > b.worker;
    return a.sequence > b.sequence;
  }

  std::vector<event> events_;
  i64 planned_ = 0, taken_ = 0;
  fingerprint trace_;
};

}  // namespace limber::sim::detail

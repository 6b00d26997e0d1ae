// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The heartbeat of a member.

#include <limber/core/clock.hpp>
#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/membership_records.hpp>
#include <limber/elastic/detail/store_client.hpp>
#include <limber/elastic/store.hpp>

#include <mutex>
#include <string>
#include <utility>

namespace limber::elastic::detail {

/// Writes one worker's heartbeat. Every member may be called from any thread.
template <store Store>
class heartbeat {
 public:
  heartbeat(Store& in, double every, clock_function clock)
      : store_(in), every_(every), clock_(std::move(clock)) {}

  /// From now on this worker is a member of generation `g`.
  void start(i64 g, std::string const& id) {
    std::scoped_lock const lock(guard_);
    generation_ = g;
    id_ = id;
    regrouping_ = fenced_ = false;
    write();
  }

  /// From now on this worker regroups: a decision on the next generation does not mean that it is fenced.
  void begin_regroup() {
    std::scoped_lock const lock(guard_);
    regrouping_ = true;
  }

  void stop() {
    std::scoped_lock const lock(guard_);
    generation_ = 0;
    fenced_ = false;
  }

  /// False if a newer generation was decided without this worker.
  bool beat() {
    std::scoped_lock const lock(guard_);
    if (generation_ == 0 || fenced_) return !fenced_;
    if (clock_() - last_ < every_) return true;
    write();
    fenced_ = !regrouping_ && store_client<Store>(store_).superseded(generation_);
    return !fenced_;
  }

 private:
  void write() {
    last_ = clock_();
    store_.replace(alive_key(id_), text(++count_));
  }

  Store& store_;
  double every_;
  clock_function clock_;
  std::mutex guard_;
  i64 generation_ = 0;
  std::string id_;
  bool regrouping_ = false, fenced_ = false;
  double last_ = 0;
  unsigned long long count_ = 0;
};

}  // namespace limber::elastic::detail

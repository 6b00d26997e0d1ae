// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A member's signs of life.

#include <limber/core/clock.hpp>
#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/ballot.hpp>
#include <limber/elastic/detail/notes.hpp>
#include <limber/elastic/store.hpp>

#include <mutex>
#include <string>
#include <utility>

namespace limber::elastic::detail {

/// Beats for one worker from any thread.
template <store Store>
class pulse {
 public:
  pulse(Store& in, double every, clock_function clock)
      : store_(in), every_(every), clock_(std::move(clock)) {}

  /// From now on this worker is in generation `g`.
  void start(i64 g, std::string const& id) {
    std::scoped_lock const lock(guard_);
    generation_ = g;
    id_ = id;
    meeting_ = fenced_ = false;
    write();
  }

  /// From now on this worker meets others about the next generation: that one stands is no bad sign.
  void meet() {
    std::scoped_lock const lock(guard_);
    meeting_ = true;
  }

  void stop() {
    std::scoped_lock const lock(guard_);
    generation_ = 0;
    fenced_ = false;
  }

  /// False if others went on without this worker.
  bool beat() {
    std::scoped_lock const lock(guard_);
    if (generation_ == 0 || fenced_) return !fenced_;
    if (clock_() - last_ < every_) return true;
    write();
    fenced_ = !meeting_ && notes<Store>(store_).passed(generation_);
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
  bool meeting_ = false, fenced_ = false;
  double last_ = 0;
  unsigned long long count_ = 0;
};

}  // namespace limber::elastic::detail

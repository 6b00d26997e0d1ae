// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The interface that runs workers in turns.

#include <functional>

namespace limber::sim::detail {

/// Runs bodies in turns: at any time exactly one of them runs, or the caller of resume().
class turn_scheduler {
 public:
  turn_scheduler() = default;
  turn_scheduler(turn_scheduler const&) = delete;
  turn_scheduler& operator=(turn_scheduler const&) = delete;
  virtual ~turn_scheduler() = default;

  /// Prepares `body`, which must not throw; the first resume() starts it.
  virtual void start(int worker, std::function<void()> body) = 0;
  /// Returns when the body suspends itself or ends. @pre it was started and has not ended
  virtual void resume(int worker) = 0;
  /// Called by the running body: returns to resume().
  virtual void suspend() = 0;
};

}  // namespace limber::sim::detail

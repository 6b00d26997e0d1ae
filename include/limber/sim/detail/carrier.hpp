// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What lets workers take turns.

#include <functional>

namespace limber::sim::detail {

/// Runs bodies in turns: exactly one of them, or who resumes them, goes on at a time.
class carrier {
 public:
  carrier() = default;
  carrier(carrier const&) = delete;
  carrier& operator=(carrier const&) = delete;
  virtual ~carrier() = default;

  /// Prepares `body`, which must not throw; its first turn comes with `resume`.
  virtual void start(int worker, std::function<void()> body) = 0;
  /// Returns when the body suspends itself or ends. @pre it was started and has not ended
  virtual void resume(int worker) = 0;
  /// Called by the body that has the turn: gives it back.
  virtual void suspend() = 0;
};

}  // namespace limber::sim::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The options of a `threads` world, and what its handles hold.

#include <limber/core/clock.hpp>
#include <limber/core/config.hpp>

#include <utility>

namespace limber::threads {

/// Options of a `threads` world.
struct options {
  double deadline = 60;                   ///< seconds of `clock` that a call waits for the others, > 0
  clock_function clock = steady_seconds;  ///< called from all threads at once; must not throw
};

namespace detail {

class group;

/// Shares a group; as std::shared_ptr, without what <memory> costs a unit.
class shared_group {
 public:
  shared_group() noexcept = default;
  /// Takes over the count that a group has when it is made. @pre it is called once a group
  explicit shared_group(group* made) noexcept : group_(made) {}
  shared_group(shared_group const& other) noexcept;
  shared_group(shared_group&& other) noexcept : group_(std::exchange(other.group_, nullptr)) {}
  shared_group& operator=(shared_group other) noexcept {
    std::swap(group_, other.group_);
    return *this;
  }
  /// @pre the world is not locked by this thread, or another owner is left: the last one destroys the group
  ~shared_group();

  [[nodiscard]] group& operator*() const noexcept { return *group_; }
  [[nodiscard]] group* operator->() const noexcept { return group_; }
  [[nodiscard]] explicit operator bool() const noexcept { return group_ != nullptr; }

 private:
  group* group_ = nullptr;
};

/// Measures one wait; restarted whenever an operation completes.
struct wait_timer {
  double since = 0;
  bool running = false;
  i64 seen = 0;
};

}  // namespace detail
}  // namespace limber::threads

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The shared state of a `threads` world: its lock, and how ranks sleep and wake.

#include <limber/comm/detail/threads_handle.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace limber::threads::detail {

/// The state of one rank of the world, common to all of its groups.
struct rank_state {
  std::condition_variable wakeup;
  bool taken = false;
  bool supervised = false;  ///< threads::run reports why this rank failed
  bool unwinding = false;   ///< an exception has unwound its requests or handles; the reason follows
};

/// The state shared by all groups of a world. One mutex guards everything but the elements of tensors.
struct world_state {
  world_state(int n, options o) : how(std::move(o)), ranks(static_cast<std::size_t>(n)) {
    // A virtual clock does not wake sleeping ranks, so they check it periodically.
    poll_interval = std::chrono::duration<double>(std::clamp(how.deadline / 20, 0.001, 0.1));
    unsigned const cores = std::thread::hardware_concurrency();
    helpers = cores > 1 ? static_cast<int>(cores) - 1 : 0;
  }

  [[nodiscard]] double now() const noexcept { return how.clock(); }

  std::mutex mutex;
  options how;
  std::chrono::duration<double> poll_interval;
  int helpers;  ///< sleeping ranks that are woken to share the work of a large operation
  std::vector<rank_state> ranks;
  std::vector<group*> groups;  ///< all that exist
};

/// Locks the world's mutex. Ranks to be woken are notified after the mutex is released, so that they do not
/// wake only to wait for it.
class world_lock {
 public:
  explicit world_lock(world_state& w) : lock_(w.mutex) {}
  world_lock(world_lock const&) = delete;
  world_lock& operator=(world_lock const&) = delete;
  ~world_lock() {
    if (lock_.owns_lock()) unlock();
  }

  void wake(rank_state& s) {
    if (count_ == capacity)
      s.wakeup.notify_all();
    else
      to_wake_[count_++] = &s;
  }
  void unlock() {
    lock_.unlock();
    for (; count_ > 0; --count_) to_wake_[count_ - 1]->wakeup.notify_all();
  }
  void lock() { lock_.lock(); }

  /// Sleeps until woken, for at most `poll_interval`; may return early. True if the interval has passed.
  bool sleep(rank_state& s, std::chrono::duration<double> poll_interval) {
    if (count_ > 0) {
      unlock();
      lock();
      return false;
    }
    return s.wakeup.wait_for(lock_, poll_interval) == std::cv_status::timeout;
  }

 private:
  static constexpr std::size_t capacity = 128;
  rank_state* to_wake_[capacity];
  std::size_t count_ = 0;
  std::unique_lock<std::mutex> lock_;
};

}  // namespace limber::threads::detail

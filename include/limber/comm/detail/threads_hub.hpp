// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Where the ranks of `threads` sleep, and how they are woken.

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace limber::threads {

/// How long ranks wait for one another.
struct options {
  double deadline = 60;                   ///< seconds of `clock` that a call waits for the others, > 0
  clock_function clock = steady_seconds;  ///< called from all threads at once; must not throw
};

namespace detail {

class group;

/// One rank of the world, in all groups that it belongs to.
struct seat {
  std::condition_variable bell;
  bool taken = false;
  bool supervised = false;  ///< threads::run will say why this rank failed
  bool unwinding = false;   ///< an exception has passed its requests or handles; the reason is to follow
};

/// What all groups of a world share. One lock guards everything but the elements of tensors.
struct hub {
  hub(int n, options o) : how(std::move(o)), seats(static_cast<std::size_t>(n)) {
    // A virtual clock does not wake anybody: sleepers look at it now and then.
    nap = std::chrono::duration<double>(std::clamp(how.deadline / 20, 0.001, 0.1));
    unsigned const cores = std::thread::hardware_concurrency();
    helpers = cores > 1 ? static_cast<int>(cores) - 1 : 0;
  }

  [[nodiscard]] double now() const noexcept { return how.clock(); }

  std::mutex door;
  options how;
  std::chrono::duration<double> nap;
  int helpers;  ///< how many sleepers are woken to share the work of a large operation
  std::vector<seat> seats;
  std::vector<std::weak_ptr<group>> groups;
};

/// Holds the hub's lock; rings the bells of those to be woken after it was released, so that they
/// do not wake only to wait for the lock.
class visit {
 public:
  explicit visit(hub& h) : lock_(h.door) {}
  visit(visit const&) = delete;
  visit& operator=(visit const&) = delete;
  ~visit() {
    if (lock_.owns_lock()) leave();
  }

  void wake(seat& s) {
    if (count_ == capacity)
      s.bell.notify_all();
    else
      bells_[count_++] = &s;
  }
  void leave() {
    lock_.unlock();
    for (; count_ > 0; --count_) bells_[count_ - 1]->bell.notify_all();
  }
  void enter() { lock_.lock(); }

  /// Sleeps until woken or for one nap; may return early. True if the nap is over.
  bool sleep(seat& s, std::chrono::duration<double> nap) {
    if (count_ > 0) {
      leave();
      enter();
      return false;
    }
    return s.bell.wait_for(lock_, nap) == std::cv_status::timeout;
  }

 private:
  static constexpr std::size_t capacity = 128;
  seat* bells_[capacity];
  std::size_t count_ = 0;
  std::unique_lock<std::mutex> lock_;
};

/// Measures one wait; starts when the waiter is about to sleep, and again when something moved.
struct patience {
  double since = 0;
  bool running = false;
  long long seen = 0;
};

}  // namespace detail
}  // namespace limber::threads

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Threads that act one at a time, in a given order: asynchronous strategies under a script.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace limber::testing {

/// What happens in a script: one worker's call with so many samples.
struct event {
  int worker = 0;
  long long samples = 8;
};
using script = std::vector<event>;

/// Whose turn it is.
class baton {
 public:
  explicit baton(script s) : script_(std::move(s)) {}

  /// Runs f(event, index) for each event of `worker`, when it is its turn. A thread that throws drops the
  /// baton for all. What all must call together, such as handshake(), does not belong into f.
  template <class F>
  void follow(int worker, F const& f) {
    for (std::size_t k = 0; k < script_.size(); ++k) {
      if (script_[k].worker != worker) continue;
      wait_for(k);
      try {
        f(script_[k], k);
      } catch (...) {
        pass(script_.size() + 1);
        throw;
      }
      pass(k + 1);
    }
  }

 private:
  void wait_for(std::size_t k) {
    std::unique_lock lock(guard_);
    bool const came = turned_.wait_for(lock, std::chrono::seconds(30), [&] { return turn_ >= k; });
    if (!came || turn_ > k) throw std::runtime_error("the baton was dropped");
  }
  void pass(std::size_t to) {
    {
      std::scoped_lock const lock(guard_);
      turn_ = to;
    }
    turned_.notify_all();
  }

  script script_;
  std::size_t turn_ = 0;
  std::mutex guard_;
  std::condition_variable turned_;
};

/// A round-robin of `workers`, with one that is three times as fast, and calls without samples.
[[nodiscard]] inline script uneven_script(int rounds = 6) {
  script s;
  for (int k = 0; k < rounds; ++k)
    for (event const e : {event{1, 8}, event{2, 5}, event{1, 3}, event{3, 16 - k}, event{1, k == 2 ? 0 : 8},
                          event{2, k == 3 ? 0 : 9}})
      s.push_back(e);
  return s;
}

}  // namespace limber::testing

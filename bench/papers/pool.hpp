// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Independent runs on all cores.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace limber::papers {

/// Calls job(i) for all i in [0, n), several at a time; returns when all have ended.
///
/// Results must be written to place i only, so that they do not depend on the number of threads.
/// The first exception is thrown again; jobs that had not begun then are left out.
/// @param done called after each job, one at a time, with the number of jobs that have ended
inline void each_on_all_cores(std::size_t n, std::function<void(std::size_t)> const& job,
                              std::function<void(std::size_t)> const& done = {},
                              std::size_t threads = std::max(1u, std::thread::hardware_concurrency())) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex guard;
  std::exception_ptr first;
  std::size_t ended = 0;
  auto const work = [&] {
    for (std::size_t i; !failed && (i = next++) < n;) try {
        job(i);
        std::lock_guard const lock(guard);
        if (done) done(++ended);
      } catch (...) {
        std::lock_guard const lock(guard);
        if (!failed.exchange(true)) first = std::current_exception();
      }
  };
  {
    std::vector<std::jthread> team;
    for (std::size_t t = 1; t < std::min(threads, n); ++t) team.emplace_back(work);
    work();
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace limber::papers

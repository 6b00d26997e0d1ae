// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/clock.hpp>

#include <ctime>

// What steady_clock reads, without the 0.2 s that <chrono> costs a unit.
#if !defined(CLOCK_MONOTONIC) || defined(__APPLE__)
#include <chrono>
#endif

namespace limber {

LIMBER_FN double steady_seconds() {
#if !defined(CLOCK_MONOTONIC) || defined(__APPLE__)
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
#else
  ::timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
#endif
}

}  // namespace limber

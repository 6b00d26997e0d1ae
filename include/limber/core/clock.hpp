// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Time is injected: everything that measures takes a clock, and a simulator hands in a virtual one.

#include <chrono>
#include <functional>

namespace limber {

/// Seconds since an arbitrary start; must never run backwards.
using clock_function = std::function<double()>;

/// The default clock, and the only place below examples/ that reads real time.
[[nodiscard]] inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace limber

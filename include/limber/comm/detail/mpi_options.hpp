// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of the MPI backend, and the division of long views into several calls.

#include <limber/core/clock.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <thread>

namespace limber::mpi {

/// Deadlines, and the action at a deadline that MPI cannot handle.
struct options {
  double deadline = 60;                   ///< seconds of `clock` that a call waits for the others, > 0
  clock_function clock = steady_seconds;  ///< on a virtual clock, give a `pause` that lets it advance
  /// Called between polls while a rank waits, so that others can use the core.
  std::function<void()> pause = [] { std::this_thread::yield(); };
  /// Called with the error message when an operation misses its deadline, while MPI still uses its memory;
  /// should not return. Empty: prints to stderr and calls MPI_Abort on the world.
  std::function<void(std::string const&)> fatal{};
  i64 largest_call = i64{1} << 30;  ///< bytes of one MPI call, ≥ 8; longer views are divided
};

namespace detail {

inline void check_options(options const& how) {
  expects(how.deadline > 0, "mpi: deadline must be > 0 s, got ", how.deadline);
  expects(how.clock != nullptr, "mpi: clock is empty");
  expects(how.pause != nullptr, "mpi: pause is empty");
  expects(how.largest_call >= 8, "mpi: largest_call must be >= 8 bytes, got ", how.largest_call);
}

/// Elements of `type` per call: MPI counts them by an int.
[[nodiscard]] inline i64 piece_of(options const& how, dtype type) noexcept {
  return std::min<i64>(how.largest_call / size_of(type), std::numeric_limits<int>::max());
}

/// Divides [0, length) into pieces: f(first, count), once with count 0 for length 0.
template <class F>
void in_pieces(i64 length, i64 piece, F f) {
  i64 first = 0;
  do {
    i64 const count = std::min(piece, length - first);
    f(first, static_cast<int>(count));
    first += count;
  } while (first < length);
}

}  // namespace detail

}  // namespace limber::mpi

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The call of step() that begin() has announced.

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>
#include <limber/core/function_ref.hpp>
#include <limber/fuse/parameter_lists.hpp>

#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::detail {

/// Its samples, and which gradients the trainer has declared complete.
///
/// Errors   std::invalid_argument naming the call, and the tensor or the samples; nothing happened then.
class open_call {
 public:
  void open(i64 n, parameter_lists const& tensors) {
    expects(n >= 0, "begin: the number of samples must not be negative, got ", n);
    expects(samples_ < 0, "begin: called twice without step(); ", samples_, " samples are open");
    samples_ = n;
    marked_.assign(tensors.names.size(), 0);
  }
  /// @return the samples of the call
  [[nodiscard]] i64 close() {
    expects(samples_ >= 0, "step: say how many samples the gradient is of, by step(n) or begin(n)");
    return std::exchange(samples_, -1);
  }
  void expect_closed(std::string_view call, std::string_view advice) const {
    expects(samples_ < 0, call, ": begin(", samples_, ") was called; ", advice);
  }

  /// Marks a tensor, at most once a call, and calls start(samples); counts the time that it takes.
  void mark(i64 tensor, parameter_lists const& tensors, clock_function const& clock,
            function_ref<void(i64 n)> start) {
    auto const t = static_cast<std::size_t>(tensor);
    expects(samples_ >= 0, "mark_ready: '", tensors.names[t], "' was marked without begin(n)");
    expects(marked_[t] == 0, "mark_ready: '", tensors.names[t], "' was marked twice");
    marked_[t] = 1;
    double const before = clock();
    start(samples_);
    seconds_ += clock() - before;
  }
  /// Seconds in `mark` since this was asked for.
  [[nodiscard]] double marking_seconds() noexcept { return std::exchange(seconds_, 0.0); }

 private:
  i64 samples_ = -1;  // −1: no call is open
  std::vector<i64> marked_;
  double seconds_ = 0;
};

}  // namespace limber::detail

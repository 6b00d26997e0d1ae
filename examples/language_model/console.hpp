// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A progress line that stays in place on a terminal and is printed now and then elsewhere.

#include <limber/core/clock.hpp>

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>

namespace example {

/// `value` with `digits` digits after the point.
[[nodiscard]] inline std::string rounded(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

/// `value` with 4 significant digits, in powers of ten where that is shorter.
[[nodiscard]] inline std::string significant(double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.4g", value);
  return buffer;
}

/// `value` in at least `width` characters, flush right.
[[nodiscard]] inline std::string padded(std::string value, std::size_t width) {
  if (value.size() < width) value.insert(0, width - value.size(), ' ');
  return value;
}

/// The line that says how far training is. For one thread at a time.
class live_line {
 public:
  live_line() : terminal_(isatty(STDOUT_FILENO) == 1) {}

  /// Whether it is time to show something new: 10 times a second on a terminal, else every 3 s.
  [[nodiscard]] bool due() const { return limber::steady_seconds() >= next_; }

  void show(std::string text) {
    next_ = limber::steady_seconds() + (terminal_ ? 0.1 : 3);
    if (terminal_) {
      // A line that wraps could not be written over.
      winsize size{};
      if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) {
        text.resize(std::min<std::size_t>(text.size(), size.ws_col - 1u));
      }
      std::printf("\r%s%*s", text.c_str(), static_cast<int>(length_ - std::min(length_, text.size())), "");
      length_ = text.size();
    } else {
      std::printf("%s\n", text.c_str());
    }
    std::fflush(stdout);
  }

  /// Leaves `text` behind as a line of its own.
  void finish(std::string const& text) {
    show(text);
    if (terminal_) std::printf("\n");
    length_ = 0;
    next_ = 0;
    std::fflush(stdout);
  }

 private:
  bool terminal_;
  std::size_t length_ = 0;
  double next_ = 0;
};

}  // namespace example

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One status line per worker, redrawn in place on a terminal and printed periodically elsewhere.

#include "../language_model/console.hpp"
#include "team.hpp"

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <cstddef>
#include <cstdio>
#include <deque>
#include <string>

namespace example {

/// "worker-2  rank 1 of 4  generation 3  epoch  4.21  loss 0.312 bits  1204 samples/s"
[[nodiscard]] inline std::string describe(member const& m) {
  using state = member::state;
  std::string const name = m.name + std::string(11 - std::min<std::size_t>(10, m.name.size()), ' ');
  std::string const where =
      limber::text("rank ", m.rank, " of ", m.size, "  generation ", m.generation, "  epoch ",
                   padded(rounded(m.epoch, 2), 5), "  loss ", rounded(m.loss, 3), " bits");
  switch (m.now) {
    case state::waiting: return name + (m.news.empty() ? "starting, or waits to be admitted" : m.news);
    case state::training: return name + where + "  " + padded(rounded(m.speed, 0), 5) + " samples/s";
    case state::stopped: return name + "stopped";
    case state::killed: return name + "killed";
    case state::finished: return name + where + "  finished";
    case state::failed: return name + "failed: " + m.news;
  }
  return name;
}

class screen {
 public:
  screen() : terminal_(isatty(STDOUT_FILENO) == 1) {}

  /// Prints an event with its time.
  void print_event(double seconds, std::string const& what) {
    wipe();
    std::printf("%s s  %s\n", padded(rounded(seconds, 1), 6).c_str(), what.c_str());
    std::fflush(stdout);
    if (terminal_) next_ = 0;
  }
  /// Prints the status of the workers, if it is due.
  void show(std::deque<member> const& members) {
    double const now = limber::steady_seconds();
    if (now < next_) return;
    next_ = now + (terminal_ ? 0.2 : 3);
    draw(members);
  }
  void finish(std::deque<member> const& members) {
    draw(members);
    lines_ = 0;
  }

 private:
  void draw(std::deque<member> const& members) {
    wipe();
    std::size_t width = 200;
    winsize size{};
    if (terminal_ && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
      width = size.ws_col - 1u;
    for (member const& m : members) std::printf("  %.*s\n", static_cast<int>(width) - 2, describe(m).c_str());
    if (terminal_) lines_ = members.size();
    std::fflush(stdout);
  }
  void wipe() {
    if (lines_ > 0) std::printf("\x1b[%zuA\x1b[J", lines_);
    lines_ = 0;
  }

  bool terminal_;
  std::size_t lines_ = 0;
  double next_ = 0;
};

}  // namespace example

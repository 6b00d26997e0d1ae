// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One run of a team: applies the schedule of events to its workers, and collects the outcome.

#include "screen.hpp"
#include "team.hpp"

#include <limber/core/clock.hpp>
#include <limber/core/random.hpp>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace example {

/// The number of SIGINT signals.
inline std::sig_atomic_t volatile interruptions = 0;

/// The outcome of a run.
struct outcome {
  bool interrupted = false;
  std::vector<std::string> failures{};  ///< workers that failed, and why
  std::vector<double> recoveries{};     ///< seconds from a loss to the next step of another generation
  int killed = 0, stopped = 0, added = 0;
};

class conductor {
 public:
  conductor(std::string program, options const& o, std::filesystem::path folder)
      : o_(o), team_(std::move(program), o.run, std::move(folder)) {}

  /// Returns when all workers have ended.
  [[nodiscard]] outcome run() {
    for (int k = 0; k < o_.run.workers; ++k) team_.start();
    last_report_ = limber::steady_seconds();
    std::sig_atomic_t seen = interruptions;
    while (team_.any_lives()) {
      auto const all = team_.listen(0.02);
      for (report const& r : all) handle(r);
      double const now = limber::steady_seconds();
      if (!all.empty()) last_report_ = now;
      for (; seen != interruptions; ++seen) on_interrupt();
      if (began_) apply_schedule(now);
      for (member& m : team_.members())
        if (m.now == member::state::stopped && now >= m.wakes) {
          team_.wake(m);
          print_event(limber::text(m.name, " is woken"));
        }
      if (now - last_report_ > 30 + 10 * o_.run.deadline) end_run("no worker has reported for too long");
      screen_.show(team_.members());
    }
    screen_.finish(team_.members());
    return std::move(out_);
  }

 private:
  [[nodiscard]] double time() const { return began_ ? limber::steady_seconds() - *began_ : 0; }
  void print_event(std::string const& what) { screen_.print_event(time(), what); }

  void handle(report const& r) {
    member& m = *r.who;
    if (r.what == "step") {
      if (!began_) began_ = limber::steady_seconds();
      if (m.generation > generation_) on_generation(m);
    } else if (r.what == "finished") {
      over_ = true;
    } else if (r.what == "log" && m.news.find("without this worker") != std::string::npos) {
      print_event(limber::text(m.name, ": ", m.news));
    } else if (r.what == "ended") {
      if (m.now == member::state::finished) over_ = true;
      if (m.now == member::state::failed && !over_) {
        print_event(limber::text(m.name, " failed: ", m.news));
        out_.failures.push_back(limber::text(m.name, ": ", m.news));
      }
    }
    // Workers that still wait to be admitted, or are stopped, cannot join any more.
    if (over_)
      for (member& other : team_.members())
        if (!other.exited && (other.now == member::state::waiting || other.now == member::state::stopped) &&
            !ending_) {
          team_.kill(other);
          print_event(limber::text(other.name, " comes too late: the run is over"));
        }
  }

  void on_generation(member const& m) {
    generation_ = m.generation;
    std::string line =
        limber::text("generation ", m.generation, ": ", m.size, m.size == 1 ? " worker" : " workers");
    if (lost_) {
      out_.recoveries.push_back(limber::steady_seconds() - *lost_);
      line += limber::text(", ", rounded(out_.recoveries.back(), 2), " s after the loss");
      lost_.reset();
    }
    print_event(line);
  }

  void apply_schedule(double now) {
    while (next_ < o_.events.size() && now - *began_ >= o_.events[next_].seconds && !over_) {
      event const& e = o_.events[next_++];
      if (e.what == action::add) {
        for (int k = 0; k < e.count; ++k) {
          print_event(limber::text(team_.start().name, " is started"));
          ++out_.added;
        }
      } else {
        for (int k = 0; k < e.count; ++k) lose(e.what);
      }
    }
  }
  void lose(action how) {
    auto all = team_.training();
    if (all.size() < 2) return print_event("one worker must remain");
    member& m = *all[limber::random_bits(o_.run.seed, 77, draws_++) % all.size()];
    lost_ = limber::steady_seconds();
    print_event(limber::text(m.name, ", rank ", m.rank, ", is ", how == action::kill ? "killed" : "stopped"));
    if (how == action::kill) {
      team_.kill(m);
      ++out_.killed;
    } else {
      team_.stop(m, *lost_ + 2 * o_.run.deadline);
      ++out_.stopped;
    }
  }
  void on_interrupt() {
    if (team_.training().size() > 1) return lose(action::kill);
    out_.interrupted = true;
    end_run("interrupted");
  }
  void end_run(std::string const& why) {
    print_event(why);
    if (!out_.interrupted) out_.failures.push_back(why);
    ending_ = true;
    for (member& m : team_.members())
      if (!m.exited) team_.kill(m);
    last_report_ = limber::steady_seconds();
  }

  options const& o_;
  team team_;
  screen screen_;
  outcome out_;
  std::optional<double> began_, lost_;
  limber::i64 generation_ = 1;
  std::size_t next_ = 0;
  std::uint64_t draws_ = 0;
  double last_report_ = 0;
  bool over_ = false, ending_ = false;
};

}  // namespace example

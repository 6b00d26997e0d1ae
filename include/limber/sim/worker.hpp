// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a program on the virtual cluster is handed: one worker's clock, work and communicator.

#include <limber/core/clock.hpp>
#include <limber/sim/communicator.hpp>

#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace limber::sim {

/// One worker of the cluster. Only compute, sleep and communication take time; C++ code takes none.
class worker {
 public:
  worker(std::shared_ptr<detail::engine> e, int rank, std::optional<detail::place> at)
      : engine_(std::move(e)), rank_(rank) {
    if (at) comm_.emplace(std::move(*at));
  }
  worker(worker const&) = delete;
  worker& operator=(worker const&) = delete;

  /// Its index in cluster.workers, and their number, joiners included.
  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return engine_->what().size(); }

  /// Virtual seconds since the start.
  [[nodiscard]] double now() const noexcept { return engine_->now(); }
  /// For options.clock.
  [[nodiscard]] clock_function clock() const {
    return [e = engine_] { return e->now(); };
  }

  /// Those who were there at the start, in order of rank.
  /// @throws std::invalid_argument if this worker joined later
  [[nodiscard]] communicator& comm() {
    expects(comm_.has_value(), "sim: worker ", rank_,
            " joined later and belongs to no group; call regroup()");
    return *comm_;
  }

  /// Occupies the worker for as long as it takes to compute so many samples, 0 included.
  void compute(double samples) {
    check_turn("compute");
    expects(samples >= 0 && math::finite(samples), "compute: samples must be a number of at least 0, got ",
            samples);
    auto& me = engine_->at(rank_);
    engine_->pass(me.computing.end(now(), samples), &worker_report::busy, "compute");
    me.counts.samples += samples;
  }

  /// Idles.
  void sleep(double seconds) {
    check_turn("sleep");
    expects(seconds >= 0 && math::finite(seconds), "sleep: seconds must be a number of at least 0, got ",
            seconds);
    engine_->pass(now() + seconds, &worker_report::sleeping, "sleep");
  }

  /// A new group, in order of rank, of all workers that live: a collective call of them, those that joined
  /// included. It ends when the last has called it. Groups that were there before stay as they are.
  [[nodiscard]] communicator regroup() {
    check_turn("regroup");
    return communicator(detail::regroup(engine_));
  }
  /// Somebody waits in regroup(). Workers may see this at different times: agree before acting on it.
  [[nodiscard]] bool regrouping() const noexcept { return engine_->gathering != nullptr; }

  /// Writes (now, rank, series, value) to the report.
  void note(std::string_view series, double value) { engine_->note(rank_, series, value); }

 private:
  void check_turn(std::string_view call) const {
    expects(engine_->turn() == rank_, "sim: ", call, " of worker ", rank_, " was called ",
            engine_->turn() < 0 ? "outside of sim::run" : "by another worker");
  }

  std::shared_ptr<detail::engine> engine_;
  int rank_;
  std::optional<communicator> comm_;
};

}  // namespace limber::sim

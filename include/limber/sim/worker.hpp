// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The interface of a program on the virtual cluster: one worker's clock, computations and communicator.

#include <limber/core/clock.hpp>
#include <limber/sim/communicator.hpp>
#include <limber/sim/detail/group.hpp>

#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace limber::sim {

/// One worker of the cluster. Only compute, sleep and communication take time; C++ code takes none.
class worker {
 public:
  worker(std::shared_ptr<detail::engine> e, int rank, std::optional<limber::detail::place> at)
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

  /// The group of all workers that started at 0, in order of rank.
  /// @throws std::invalid_argument if this worker joined later
  [[nodiscard]] communicator& comm() {
    expects(comm_.has_value(), "sim: worker ", rank_,
            " joined later and belongs to no group; call regroup()");
    return *comm_;
  }

  /// Lets the time pass that the worker needs to compute `samples` samples; may be 0.
  void compute(double samples) {
    check_turn("compute");
    expects(samples >= 0 && math::finite(samples), "compute: samples must be a number of at least 0, got ",
            samples);
    auto& me = engine_->at(rank_);
    engine_->wait_until(me.computing.end(now(), samples), &worker_report::busy, "compute");
    me.counts.samples += samples;
  }

  /// Lets time pass without computing.
  void sleep(double seconds) {
    check_turn("sleep");
    expects(seconds >= 0 && math::finite(seconds), "sleep: seconds must be a number of at least 0, got ",
            seconds);
    engine_->wait_until(now() + seconds, &worker_report::sleeping, "sleep");
  }

  /// A new group of all live workers, in order of rank: a collective call of all of them, including joiners.
  /// Existing groups are unchanged.
  [[nodiscard]] communicator regroup() {
    check_turn("regroup");
    return communicator(detail::regroup(engine_));
  }
  /// True if a worker waits in regroup(). Workers may see this at different times: agree before acting on it.
  [[nodiscard]] bool regrouping() const noexcept { return engine_->pending_regroup != nullptr; }

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

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Runs a program on a virtual cluster: the event loop, until all workers have ended.

#include <limber/sim/cluster.hpp>
#include <limber/sim/detail/group.hpp>
#include <limber/sim/report.hpp>
#include <limber/sim/worker.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace limber::sim::detail {

class driver {
 public:
  /// `body(worker, *this)` runs in the turns of that worker, and calls `failed` for what it catches.
  driver(std::shared_ptr<engine> e, std::function<void(int, driver&)> body)
      : engine_(std::move(e)), body_(std::move(body)), left_(engine_->what().size()) {}
  driver(driver const&) = delete;
  driver& operator=(driver const&) = delete;

  /// Unwinds all remaining stacks.
  ~driver() {
    for (std::size_t w = 0; w < engine_->workers_.size(); ++w) {
      worker_state& s = engine_->workers_[w];
      s.dead = true;
      while (s.begun && !s.ended) resume(static_cast<int>(w));
    }
    engine_->pending_regroup = nullptr;
    engine_->events_.clear();
  }

  /// @throws what the first worker threw
  [[nodiscard]] report run() {
    cluster const& c = engine_->what();
    for (int w = 0; w < c.size(); ++w)
      engine_->plan(engine_->at(w).starts, phase::worker, w, [this, w] { begin(w); });
    for (death const& d : c.deaths)
      engine_->plan(d.at, phase::cluster, d.worker, [this, w = d.worker] { kill(w); });
    while (left_ > 0) {
      if (engine_->events_.empty()) {
        handle_idle();
        continue;
      }
      event e = engine_->next_event();
      if (e.act || e.time > engine_->now_) idle_rounds_ = 0;
      engine_->now_ = e.time;
      if (e.act)
        e.act();
      else
        give_turn(e.worker);
    }
    if (first_exception_) std::rethrow_exception(first_exception_);
    return summary();
  }

  /// Called in the last turn of a body that throws; `reason` is for the errors of the other workers.
  void failed(int worker, std::string const& reason) {
    if (engine_->at(worker).dead) return;
    if (!first_exception_) first_exception_ = std::current_exception();
    group::fail_with_rank(*engine_, worker, reason, false);
  }

 private:
  void begin(int w) {
    worker_state& s = engine_->at(w);
    if (s.ended) return;
    if (first_exception_ != nullptr) return end(w);  // workers do not join a failed run
    engine_->turns_->start(w, [this, w] {
      body_(w, *this);
      end(w);
    });
    s.begun = true;
    s.counts.started = engine_->now_;
    resume(w);
  }

  void resume(int w) {
    engine_->turn_ = w;
    engine_->turns_->resume(w);
    engine_->turn_ = -1;
  }
  void give_turn(int w) {
    worker_state& s = engine_->at(w);
    s.turn_planned = false;
    if (s.parked) resume(w);
  }

  void end(int w) {
    worker_state& s = engine_->at(w);
    if (!s.dead) group::fail_unwound(*engine_, w);
    s.ended = true;
    s.counts.ended = engine_->now_;
    if (!s.begun) s.counts.started = engine_->now_;
    --left_;
    complete_regroup(engine_);
  }

  void kill(int w) {
    worker_state& s = engine_->at(w);
    if (s.ended || s.dead) return;
    s.dead = true;
    s.died_at = engine_->now_;
    s.counts.died = true;
    if (!s.begun) return end(w);
    for (auto* g = engine_->first_group; g != nullptr; g = g->next_group)
      static_cast<group*>(g)->cancel_in_flight(w);
    if (engine_->pending_regroup) std::erase(engine_->pending_regroup->here, w);
    engine_->plan(engine_->now_ + engine_->what().detection, phase::cluster, w, [this, w] {
      engine_->at(w).death_known = true;
      for (auto* g = engine_->first_group; g != nullptr; g = g->next_group)
        static_cast<group*>(g)->death_detected(w);
      complete_regroup(engine_);
    });
    while (!s.ended) resume(w);
  }

  /// Called when no event is planned and not all workers have ended. Workers that poll may still make
  /// progress.
  void handle_idle() {
    bool spins = false;
    if (++idle_rounds_ < max_idle_rounds)
      for (std::size_t w = 0; w < engine_->workers_.size(); ++w)
        if (engine_->workers_[w].polling) {
          spins = true;
          engine_->wake(static_cast<int>(w));
        }
    if (!spins) deadlock();
  }

  /// Throws an error in all waiting workers that lists what each waits for.
  void deadlock() {
    std::vector<std::pair<int, std::pair<std::string, int>>>
        waiting;  // worker, what it waits for, rank at fault
    for (std::size_t w = 0; w < engine_->workers_.size(); ++w)
      if (engine_->workers_[w].parked)
        waiting.emplace_back(static_cast<int>(w), deadlock_report(static_cast<int>(w)));
    std::string all;
    std::size_t const shown = std::min<std::size_t>(waiting.size(), 8);
    for (std::size_t k = 0; k < shown; ++k)
      all += text(k == 0 ? "" : "; ", "worker ", waiting[k].first, " waits in ", waiting[k].second.first);
    if (shown < waiting.size()) all += text("; ", waiting.size() - shown, " more wait");
    for (std::size_t k = 0; k < waiting.size(); ++k) {
      auto const& [w, report] = waiting[k];
      worker_state& s = engine_->at(w);
      std::string reason = text("deadlock at ", engine_->now_, " s: ", all);
      if (k >= shown) reason += text("; this one, in ", report.first);
      s.pending_error.emplace(failure{"sim", std::string(s.waits_for.call), 0, report.second,
                                      std::string(s.waits_for.bucket), std::move(reason)});
      engine_->wake(w);
    }
  }

  [[nodiscard]] std::pair<std::string, int> deadlock_report(int w) {
    pending_wait const& e = engine_->at(w).waits_for;
    if (e.where != nullptr) return e.where->deadlock_report(e);
    std::string missing;
    int first = -1;
    for (std::size_t k = 0; engine_->pending_regroup && k < engine_->workers_.size(); ++k) {
      worker_state const& s = engine_->workers_[k];
      if (s.starts > engine_->now_ || s.ended ||
          std::ranges::binary_search(engine_->pending_regroup->here, static_cast<int>(k)))
        continue;
      if (first < 0) first = static_cast<int>(k);
      missing += text(missing.empty() ? " for worker " : ", ", k);
    }
    return {text(e.call, missing), first};
  }

  [[nodiscard]] report summary() {
    report r;
    for (worker_state const& s : engine_->workers_) {
      r.workers.push_back(s.counts);
      r.seconds = std::max(r.seconds, s.counts.ended);
    }
    r.notes = std::move(engine_->notes_);
    r.events = engine_->taken_;
    r.trace_hash = engine_->trace_.value();
    return r;
  }

  static constexpr int max_idle_rounds = 1000;

  std::shared_ptr<engine> engine_;
  std::function<void(int, driver&)> body_;
  int left_;
  int idle_rounds_ = 0;  ///< successive times that polling workers were woken without a planned event
  std::exception_ptr first_exception_;
};

}  // namespace limber::sim::detail

namespace limber::sim {

/// Calls f(sim::worker&) for every worker, in turns, and returns when all have ended.
///
/// Order    events are ordered by (time, rank, order of planning); at equal times, events of links precede
///          those of workers. The same cluster and program give the same trace with any scheduler.
/// Cost     on fibers a turn takes well below a microsecond, and a worker its stack: 1,024 of them run
///          on one core.
/// Errors   the first exception of a worker is rethrown after all have ended; the other workers get a
///          limber::error that quotes it. A scheduled death is not an error of the run.
/// @throws std::invalid_argument as cluster::validate
template <class F>
report run(cluster const& what, F f) {
  what.validate();
  auto const e = std::make_shared<detail::engine>(what);
  std::vector<int> founders;
  for (int w = 0; w < what.size(); ++w)
    if (std::ranges::find(what.joins, w, &join::worker) == what.joins.end()) founders.push_back(w);
  auto const all = limber::detail::shared_group(new detail::group(e, founders));
  detail::driver drive(e, [&](int w, detail::driver& drives) {
    auto const place = std::ranges::lower_bound(founders, w);
    bool const founder = place != founders.end() && *place == w;
    worker me(e, w,
              founder ? std::optional(limber::detail::place{all, static_cast<int>(place - founders.begin())})
                      : std::nullopt);
    try {
      f(me);
    } catch (detail::killed const&) {
    } catch (std::exception const& x) { drives.failed(w, text("threw: ", x.what())); } catch (...) {
      drives.failed(w, "threw something that is no std::exception");
    }
  });
  return drive.run();
}

}  // namespace limber::sim

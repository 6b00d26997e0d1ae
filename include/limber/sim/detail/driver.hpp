// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The loop of a run: one event after another, until all workers have ended.

#include <limber/sim/detail/group.hpp>
#include <limber/sim/detail/regroup.hpp>

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
  /// `body(worker)` runs with the turns of that worker, and may throw.
  driver(std::shared_ptr<engine> e, std::function<void(int)> body)
      : engine_(std::move(e)), body_(std::move(body)), left_(engine_->what().size()) {}
  driver(driver const&) = delete;
  driver& operator=(driver const&) = delete;

  /// No stack is left behind, whatever went wrong.
  ~driver() {
    for (std::size_t w = 0; w < engine_->seats_.size(); ++w) {
      seat& s = engine_->seats_[w];
      s.dead = true;
      while (s.begun && !s.ended) resume(static_cast<int>(w));
    }
    engine_->gathering = nullptr;
    engine_->events_.clear();
  }

  /// @throws what the first worker threw
  [[nodiscard]] report run() {
    cluster const& c = engine_->what();
    for (int w = 0; w < c.size(); ++w)
      engine_->events_.plan(engine_->at(w).starts, phase::worker, w, [this, w] { begin(w); });
    for (death const& d : c.deaths) engine_->plan(d.at, d.worker, [this, w = d.worker] { kill(w); });
    while (left_ > 0) {
      if (engine_->events_.empty()) {
        quiet();
        continue;
      }
      event e = engine_->events_.next();
      if (e.act || e.time > engine_->now_) silences_ = 0;
      engine_->now_ = e.time;
      if (e.act)
        e.act();
      else
        give_turn(e.worker);
    }
    if (first_) std::rethrow_exception(first_);
    return summary();
  }

  /// Called at the end of a body, in its last turn, if it throws: `reason` is for the others.
  void failed(int worker, std::string const& reason) {
    if (engine_->at(worker).dead) return;
    if (!first_) first_ = std::current_exception();
    for (auto const& end : std::exchange(engine_->at(worker).loose_ends, {}))
      end.where->tie_up(end.rank, reason);
    for (auto const& weak : std::vector(engine_->groups))
      if (auto const g = weak.lock()) g->abandon(worker, reason);
  }

 private:
  void begin(int w) {
    seat& s = engine_->at(w);
    if (s.ended) return;
    if (first_ != nullptr) return end(w);  // nobody joins a run that has failed
    engine_->carrier_->start(w, [this, w] {
      body_(w);
      end(w);
    });
    s.begun = true;
    s.counts.started = engine_->now_;
    resume(w);
  }

  void resume(int w) {
    engine_->turn_ = w;
    engine_->carrier_->resume(w);
    engine_->turn_ = -1;
  }
  void give_turn(int w) {
    seat& s = engine_->at(w);
    s.rung = false;
    if (s.parked) resume(w);
  }

  void end(int w) {
    seat& s = engine_->at(w);
    if (!s.dead) settle(s);
    s.loose_ends.clear();
    s.ended = true;
    s.counts.ended = engine_->now_;
    if (!s.begun) s.counts.started = engine_->now_;
    --left_;
    muster_if_all(engine_);
  }

  void kill(int w) {
    seat& s = engine_->at(w);
    if (s.ended || s.dead) return;
    s.dead = true;
    s.died_at = engine_->now_;
    s.counts.died = true;
    if (!s.begun) return end(w);
    each_group([&](group& g) { g.lose(w); });
    if (engine_->gathering) std::erase(engine_->gathering->here, w);
    engine_->plan(engine_->now_ + engine_->what().detection, w, [this, w] {
      engine_->at(w).noticed = true;
      each_group([&](group& g) { g.notice(w); });
      muster_if_all(engine_);
    });
    while (!s.ended) resume(w);
  }

  template <class F>
  void each_group(F f) {
    for (auto const& weak : std::vector(engine_->groups))
      if (auto const g = weak.lock()) f(*g);
  }

  /// Nothing is planned, and not all have ended. Those that ask in vain may still move something.
  void quiet() {
    bool spins = false;
    if (++silences_ < most_silences)
      for (std::size_t w = 0; w < engine_->seats_.size(); ++w)
        if (engine_->seats_[w].spinning) {
          spins = true;
          engine_->wake(static_cast<int>(w));
        }
    if (!spins) deadlock();
  }

  /// Everybody who waits is told who waits for what.
  void deadlock() {
    std::vector<int> waiting;
    for (std::size_t w = 0; w < engine_->seats_.size(); ++w)
      if (engine_->seats_[w].parked) waiting.push_back(static_cast<int>(w));
    std::vector<std::pair<std::string, int>> plights;
    for (int const w : waiting) plights.push_back(plight(w));
    std::string all;
    std::size_t const shown = std::min<std::size_t>(waiting.size(), 8);
    for (std::size_t k = 0; k < shown; ++k)
      all += text(k == 0 ? "" : "; ", "worker ", waiting[k], " waits in ", plights[k].first);
    if (shown < waiting.size()) all += text("; ", waiting.size() - shown, " more wait");
    for (std::size_t k = 0; k < waiting.size(); ++k) {
      seat& s = engine_->at(waiting[k]);
      std::string const own = k < shown ? "" : text("; this one, in ", plights[k].first);
      s.verdict.emplace(failure{"sim", std::string(s.waits_for.call), 0, plights[k].second,
                                std::string(s.waits_for.bucket),
                                text("deadlock at ", engine_->now_, " s: ", all, own)});
      engine_->wake(waiting[k]);
    }
  }

  [[nodiscard]] std::pair<std::string, int> plight(int w) {
    errand const& e = engine_->at(w).waits_for;
    if (e.where != nullptr) return e.where->plight(e);
    std::string missing;
    int first = -1;
    for (std::size_t k = 0; engine_->gathering && k < engine_->seats_.size(); ++k) {
      seat const& s = engine_->seats_[k];
      if (s.starts > engine_->now_ || s.ended ||
          std::ranges::binary_search(engine_->gathering->here, static_cast<int>(k)))
        continue;
      if (first < 0) first = static_cast<int>(k);
      missing += text(missing.empty() ? " for worker " : ", ", k);
    }
    return {text(e.call, missing), first};
  }

  [[nodiscard]] report summary() {
    report r;
    for (seat const& s : engine_->seats_) {
      r.workers.push_back(s.counts);
      r.seconds = std::max(r.seconds, s.counts.ended);
    }
    r.notes = std::move(engine_->notes_);
    r.events = engine_->events_.given();
    r.trace_hash = engine_->events_.trace();
    return r;
  }

  static constexpr int most_silences = 1000;

  std::shared_ptr<engine> engine_;
  std::function<void(int)> body_;
  int left_;
  int silences_ =
      0;  ///< times in a row that nothing was planned and those who ask in vain were let ask again
  std::exception_ptr first_;
};

/// "all_reduce of 8 f32 (sum) of 'w' for rank 2, rank 3".
inline std::pair<std::string, int> group::plight(errand const& e) {
  std::string out(e.call);
  int culprit = e.peer;
  if (e.peer >= 0) {
    out +=
        text(e.bucket.empty() ? "" : " of '", e.bucket, e.bucket.empty() ? "" : "'", " from ", who(e.peer));
    return {out, culprit};
  }
  record* const r = e.call == "poll" ? nullptr : records_.find(e.sequence);
  if (e.sequence == 0 || r == nullptr) return {out, culprit};
  std::vector<int> missing;
  for (int k = 0; k < size(); ++k)
    if (r->here[static_cast<std::size_t>(k)] == 0) missing.push_back(k);
  if (!missing.empty()) culprit = missing[0];
  out = text_of(r->what);
  if (!e.bucket.empty()) out += text(" of '", e.bucket, "'");
  if (!missing.empty()) out += text(" for ", who(missing));
  return {out, culprit};
}

}  // namespace limber::sim::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The groups of the virtual cluster: how workers wait, and what time a call takes.
///
/// The rank that arrives last computes the whole result in rank order, and stores it to all ranks; it is
/// valid from the virtual time at which the operation ends. No rank's memory is accessed after the last
/// arrival.

#include <limber/comm/detail/local_group.hpp>
#include <limber/sim/detail/engine.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::sim::detail {

class group final : public local_group {
 public:
  group(std::shared_ptr<engine> e, std::vector<int> const& workers)
      : local_group(*e, workers), engine_(std::move(e)) {
    cluster const& c = engine_->what();
    bool const in_one_block =
        std::ranges::all_of(workers, [&](int s) { return &c.between(workers.front(), s) == &c.inside; });
    over_ = in_one_block ? c.inside : c.network;
    for (int const s : workers) {
      if (engine_->at(s).dead) cancelled_at_ = engine_->now();
      if (engine_->at(s).death_known) ++known_deaths_;
    }
  }
  ~group() override { forget(); }

  [[nodiscard]] double barrier_seconds() const noexcept { return broadcast_seconds(over_, 0, size()); }

  void leave(int rank, bool unwinding) noexcept override {
    if (!is_dead(rank) && !state_of(rank).ended) local_group::leave(rank, unwinding);
  }

  /// A worker has died: operations in flight never complete. The other workers do not know of it yet.
  void cancel_in_flight(int worker) {
    if (holds(worker)) cancelled_at_ = std::min(cancelled_at_, now());
  }
  /// From now on the other workers know of the death of `worker`.
  void death_detected(int worker) {
    if (!holds(worker)) return;
    ++known_deaths_;
    wake_all();
  }

  /// For a deadlock: what a worker waits for in this group, as "all_reduce of 8 f32 (sum) of 'w' for rank 2,
  /// rank 3", and the rank at fault, or −1.
  [[nodiscard]] std::pair<std::string, int> deadlock_report(awaited_event const& e) {
    std::string const bucket = e.bucket.empty() ? "" : text(" of '", e.bucket, "'");
    if (e.peer >= 0) return {text(e.call, bucket, " from ", say({e.peer})), e.peer};
    record const& r = records_[e.sequence];
    if (e.sequence == 0 || e.call == "poll" || r.sequence != e.sequence) return {std::string(e.call), -1};
    std::vector<int> missing;
    for (int k = 0; k < size(); ++k)
      if (!r.ranks[static_cast<std::size_t>(k)].here) missing.push_back(k);
    if (missing.empty()) return {text(text_of(r.what), bucket), -1};
    return {text(text_of(r.what), bucket, " for ", say({missing})), missing[0]};
  }

 private:
  [[nodiscard]] worker_state& state_of(int rank) const noexcept { return engine_->at(at(rank).world_rank); }
  [[nodiscard]] bool holds(int worker) const noexcept {
    return std::ranges::any_of(members_, [&](member const& m) { return m.world_rank == worker && !m.left; });
  }
  /// The time up to which operations have completed.
  [[nodiscard]] double horizon() const noexcept { return std::min(engine_->now(), cancelled_at_); }

  [[nodiscard]] double now() const override { return engine_->now(); }
  void check_caller(int rank, std::string_view call, bool begins) override {
    if (int const user = engine_->turn(); user != at(rank).world_rank)
      expects(false, "sim: ", call, ": the communicator of worker ", at(rank).world_rank, " was used ",
              user < 0 ? "outside of sim::run" : text("by worker ", user));
    if (begins && is_dead(rank)) throw killed{};
  }
  bool wait(int, awaited_event const& e, wait_timer&) override {
    engine_->park(&worker_report::waiting, {e, this});
    return false;
  }
  void wake(int rank) override {
    worker_state const& s = state_of(rank);
    if (s.polling || s.waits_for.where == this) engine_->wake(at(rank).world_rank);
  }
  bool empty_poll(int, awaited_event const& e) override {
    engine_->empty_poll({e, this});
    return true;
  }
  [[nodiscard]] bool supervised(int) const override { return true; }

  [[nodiscard]] bool is_dead(int rank) const override { return state_of(rank).dead; }
  [[nodiscard]] bool death_known(int rank) const override { return state_of(rank).death_known; }
  [[nodiscard]] std::string death_text(int rank) const override {
    return say({rank, " died at ", state_of(rank).died_at, " s"});
  }
  void fail(int rank, std::string reason) override {
    if (!failed_) cancelled_at_ = std::min(cancelled_at_, now());
    local_group::fail(rank, std::move(reason));
  }

  void perform(record& r) override {
    if (cancelled_at_ != infinite) return;
    limber::detail::perform(r.what, r.ranks, 0, limber::detail::extent(r.what, size()));
    operation_cost const p =
        cost_of(r.what, engine_->what().reduce, over_, size(), engine_->what().byte_scale);
    r.end = free_ = std::max(now(), free_) + p.seconds;
    i64 const bytes = std::llround(p.bytes);
    for (auto const& m : members_) {
      engine_->at(m.world_rank).counts.bytes_sent += bytes;
      ++engine_->at(m.world_rank).counts.operations;
    }
    if (size() > 1)
      engine_->plan(r.end, phase::cluster, at(0).world_rank,
                    [this, self = shared_group(this), sequence = r.sequence] { ended(sequence); });
  }
  [[nodiscard]] bool is_complete(record const& r) const override { return r.end <= horizon(); }
  /// Wakes the workers that wait for `sequence` or an earlier operation.
  void ended(i64 sequence) {
    if (cancelled_at_ < now()) return;
    for (auto const& m : members_) {
      worker_state const& s = engine_->at(m.world_rank);
      bool const waits =
          s.waits_for.where == this && s.waits_for.sequence > 0 && s.waits_for.sequence <= sequence;
      if (waits || s.polling) engine_->wake(m.world_rank);
    }
  }

  [[nodiscard]] shared_group make(std::vector<int> const& workers) override {
    return shared_group(new group(engine_, workers));
  }
  double usable_from(local_group& made, int rank) override {
    double const time = now() + static_cast<group&>(made).barrier_seconds();
    engine_->plan(time, phase::cluster, at(rank).world_rank,
                  [this, self = shared_group(this)] { wake_all(); });
    return time;
  }
  [[nodiscard]] bool has_come(double time) const override { return now() >= time; }

  /// The sender of a tensor waits until its link has taken it.
  void deliver(int to, stored_message m) override {
    auto const sent = std::make_shared<stored_message>(std::move(m));
    flight const f{sent->source, to, sent->is_tensor};
    in_flight_.push_back(f);
    double const taken =
        engine_->transfer(at(f.from).world_rank, at(to).world_rank, static_cast<i64>(sent->bytes.size()),
                          [this, self = shared_group(this), f, sent](bool arrived) {
                            in_flight_.erase(std::ranges::find(in_flight_, f));
                            if (arrived) arrive(f.to, std::move(*sent));
                            wake(f.to);
                          });
    if (f.is_tensor) engine_->wait_until(taken, &worker_report::waiting, "send");
  }
  [[nodiscard]] bool in_transit(int rank, int from) const override {
    return std::ranges::any_of(in_flight_, [&](flight const& f) {
      return f.to == rank && (from < 0 ? !f.is_tensor : f.is_tensor && f.from == from);
    });
  }
  [[nodiscard]] bool has_news(member const& m) const override { return m.messages.has_unread(); }

  /// A message of `send` or `post` on its way.
  struct flight {
    int from, to;
    bool is_tensor;
    friend bool operator==(flight const&, flight const&) = default;
  };

  std::shared_ptr<engine> engine_;
  link over_{};
  double free_ = 0;  ///< when the last complete operation ends
  double cancelled_at_ =
      infinite;  ///< operations that end later never complete: a rank died, or the group failed
  std::vector<flight> in_flight_;
};

/// A regroup() in progress: of all live workers.
struct regroup_round {
  std::vector<int> here{};  ///< workers that have called it, in order of rank
  shared_group next{};
  double end = 0;
};

/// Completes the current regroup() if all live workers have called it. A dead worker is waited for until its
/// death is known.
inline void complete_regroup(std::shared_ptr<engine> const& e) {
  if (!e->pending_regroup || e->pending_regroup->here.empty()) return;
  regroup_round& m = *e->pending_regroup;
  for (std::size_t w = 0; w < e->workers().size(); ++w) {
    worker_state const& s = e->workers()[w];
    bool const lives = s.starts <= e->now() && (s.dead ? !s.death_known : !s.ended);
    if (lives && (s.dead || !std::ranges::binary_search(m.here, static_cast<int>(w)))) return;
  }
  auto* const made = new group(e, m.here);
  m.next = shared_group(made);
  m.end = e->now() + made->barrier_seconds();
  e->plan(m.end, phase::cluster, m.here.front(), [e = e.get(), here = m.here] {
    for (int const w : here) e->wake(w);
  });
  e->pending_regroup = nullptr;
}

/// @pre called by the worker that has the turn
inline place regroup(std::shared_ptr<engine> const& e) {
  int const worker = e->turn();
  local_group::fail_unwound(*e, worker);
  if (!e->pending_regroup) e->pending_regroup = std::make_shared<regroup_round>();
  auto const mine = e->pending_regroup;
  mine->here.insert(std::ranges::lower_bound(mine->here, worker), worker);
  complete_regroup(e);
  while (!mine->next || e->now() < mine->end) e->park(&worker_report::waiting, {{"regroup"}});
  return {mine->next, rank_among(mine->here, worker)};
}

}  // namespace limber::sim::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The state that the ranks of one communicator of the virtual cluster share: its operations.
///
/// The rank that arrives last computes the whole result in rank order, and stores it to all ranks; it is
/// valid from the virtual time at which the operation ends. No rank's memory is accessed after the last
/// arrival.

#include <limber/sim/detail/engine.hpp>
#include <limber/sim/detail/record.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <deque>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::sim::detail {

using limber::detail::operation;
using limber::detail::rank_buffers;
using limber::detail::signature;

/// A rank of a group.
struct place {
  std::shared_ptr<group> where;
  int rank = 0;
};

class group : public std::enable_shared_from_this<group> {
 public:
  [[nodiscard]] static std::shared_ptr<group> make(std::shared_ptr<engine> const& e,
                                                   std::vector<int> const& workers) {
    auto made = std::make_shared<group>(e, workers);
    std::erase_if(e->groups, [](auto const& g) { return g.expired(); });
    e->groups.push_back(made);
    return made;
  }

  group(std::shared_ptr<engine> e, std::vector<int> const& workers)
      : engine_(std::move(e)), members_(workers.size()) {
    for (std::size_t r = 0; r < workers.size(); ++r) members_[r].worker = workers[r];
    cluster const& c = engine_->what();
    bool const in_one_block =
        std::ranges::all_of(workers, [&](int s) { return &c.between(workers.front(), s) == &c.inside; });
    over_ = in_one_block ? c.inside : c.network;
    for (int const s : workers) {
      if (engine_->at(s).dead) cancelled_at_ = engine_->now();
      if (engine_->at(s).death_known) ++known_deaths_;
    }
  }

  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.size()); }
  [[nodiscard]] double barrier_seconds() const noexcept { return broadcast_seconds(over_, 0, size()); }

  /// Registers the rank's part of its next operation. Returns the operation's number.
  i64 start(int rank, signature const& s, rank_buffers mine, std::string_view bucket, int color = 0) {
    check_in(rank, limber::detail::name_of(s.what), bucket);
    i64 const sequence = ++at(rank).started;
    records_.advance(horizon());
    record& r = records_.fetch(sequence, members_.size());
    if (r.arrived == 0) {
      r.what = s;
      r.first = rank;
    } else if (r.what != s) {
      // If two ranks agree and one differs, that one is at fault.
      int const other = r.first;
      fail(r.arrived == 1 ? std::max(rank, other) : rank,
           text(rank_name(std::min(rank, other)), " called ", text_of(rank < other ? s : r.what), " where ",
                rank_name(std::max(rank, other)), " called ", text_of(rank < other ? r.what : s)));
      throw failure_error(limber::detail::name_of(s.what), bucket);
    }
    auto const i = static_cast<std::size_t>(rank);
    r.buffers[i] = mine;
    r.colors[i] = color;
    r.here[i] = 1;
    if (++r.arrived == size() && cancelled_at_ == infinite) perform(r, sequence);
    return sequence;
  }

  /// Waits for operation `sequence`.
  void finish(int rank, i64 sequence, operation what, std::string_view bucket) {
    while (!over(rank, sequence))
      engine_->park(&worker_report::waiting, {limber::detail::name_of(what), bucket, this, sequence, -1});
    if (records_.completed() < sequence) throw failure_error(limber::detail::name_of(what), bucket);
  }

  /// True if finish() would return or throw without waiting.
  bool done(int rank, i64 sequence, operation what, std::string_view bucket) {
    if (over(rank, sequence)) return true;
    engine_->empty_poll({limber::detail::name_of(what), bucket, this, sequence, -1});
    return over(rank, sequence);
  }

  /// A request was destroyed before it was waited for.
  void drop(int rank, operation what, std::string_view bucket, bool unwinding) {
    if (state_of(rank).dead) return;
    if (unwinding)
      state_of(rank).unwound_handles.push_back({shared_from_this(), rank});
    else
      fail(rank, text(rank_name(rank), " destroyed its ", limber::detail::name_of(what),
                      bucket.empty() ? "" : " of '", bucket, bucket.empty() ? "" : "'",
                      " before it was waited for"));
  }

  /// The handle of `rank` was destroyed.
  void leave(int rank, bool unwinding) {
    if (state_of(rank).dead || state_of(rank).ended) return;
    at(rank).left = true;
    ++left_count_;
    wake_all();
    if (unwinding) state_of(rank).unwound_handles.push_back({shared_from_this(), rank});
  }

  void fail(int rank, std::string reason) {
    if (failed_) return;
    failed_ = group_failure{rank, std::move(reason)};
    cancelled_at_ = std::min(cancelled_at_, engine_->now());
    wake_all();
  }

  /// A worker threw: the group fails unless it had left before.
  void fail_with_worker(int worker, std::string const& reason) {
    for (int r = 0; r < size(); ++r)
      if (at(r).worker == worker && !at(r).left) fail(r, text(rank_name(r), " ", reason));
  }
  void fail_by_exception(int rank, std::string const& reason) {
    fail(rank, text(rank_name(rank), " ", reason));
  }

  /// A worker has died: operations in flight never complete. The other workers do not know of it yet.
  void cancel_in_flight(int worker) {
    if (holds(worker)) cancelled_at_ = std::min(cancelled_at_, engine_->now());
  }
  /// From now on the other workers know of the death of `worker`.
  void death_detected(int worker) {
    if (!holds(worker)) return;
    ++known_deaths_;
    wake_all();
  }

  /// The new place of `rank` after a split.
  [[nodiscard]] place take_place(int rank) { return std::exchange(at(rank).next, {}); }

  /// A new group of those not in `lost`; the old one has failed afterwards.
  [[nodiscard]] place shrink(int rank, std::vector<int> const& lost);

  void send(int rank, int peer, const_tensor_view in);
  void recv(int rank, int peer, tensor_view out);
  void post(int rank, int peer, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] std::optional<message> poll(int rank, i64 tag);
  void listen(int rank);

  /// For a deadlock: what a worker waits for in this group, and the rank at fault, or −1.
  [[nodiscard]] std::pair<std::string, int> deadlock_report(pending_wait const& e);

 private:
  struct tensor_message {
    dtype type;
    i64 length;
    std::vector<std::byte> bytes;
  };
  struct mailbox_message {
    i64 number;  ///< of all messages to this rank, from 1
    message what;
  };

  struct member {
    int worker = 0;
    bool left = false;
    i64 started = 0;
    place next{};
    std::map<int, std::deque<tensor_message>> tensor_messages{};
    std::map<int, i64> tensors_in_transit{};  ///< messages of `send` in transit
    std::map<i64, std::deque<mailbox_message>> mailbox{};
    i64 mail_in_transit = 0;           ///< messages of `post` in transit
    i64 arrived = 0, listened_to = 0;  ///< messages of `post`; up to the last listen()
    i64 unseen = 0;                    ///< unread messages that no listen() has returned for
  };

  struct group_failure {
    int rank;
    std::string reason;
  };

  struct shrinking {
    std::vector<int> lost;
    std::vector<char> here;
    std::shared_ptr<group> next{};
    double end = 0;
    std::optional<group_failure> failed{};
  };

  [[nodiscard]] member& at(int rank) noexcept { return members_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] worker_state& state_of(int rank) noexcept { return engine_->at(at(rank).worker); }
  [[nodiscard]] bool holds(int worker) const noexcept {
    return std::ranges::any_of(members_, [&](member const& m) { return m.worker == worker && !m.left; });
  }
  [[nodiscard]] std::string rank_name(int rank) {
    int const s = at(rank).worker;
    return s == rank ? text("rank ", rank) : text("rank ", rank, " (worker ", s, ")");
  }
  [[nodiscard]] std::string rank_name(std::vector<int> const& ranks) {
    std::string out;
    for (std::size_t k = 0; k < ranks.size() && k < 8; ++k)
      out += text(k == 0 ? "" : ", ", rank_name(ranks[k]));
    return ranks.size() > 8 ? text(out, " and ", ranks.size() - 8, " more") : out;
  }
  [[nodiscard]] error failure_error(std::string_view call, std::string_view bucket) const {
    return error({"sim", std::string(call), 0, failed_->rank, std::string(bucket), failed_->reason});
  }
  [[nodiscard]] std::string death_message(int rank) {
    return text(rank_name(rank), " died at ", state_of(rank).died_at, " s");
  }

  void wake_all() {
    for (auto const& m : members_) {
      worker_state const& s = engine_->at(m.worker);
      if (s.polling || s.waits_for.where == this) engine_->wake(m.worker);
    }
  }
  void wake(int rank) {
    worker_state const& s = state_of(rank);
    if (s.polling || s.waits_for.where == this) engine_->wake(at(rank).worker);
  }

  /// The time up to which operations have completed.
  [[nodiscard]] double horizon() const noexcept { return std::min(engine_->now(), cancelled_at_); }

  void check_turn(int rank, std::string_view call) {
    if (int const user = engine_->turn(); user != at(rank).worker)
      expects(false, "sim: ", call, ": the communicator of worker ", at(rank).worker, " was used ",
              user < 0 ? "outside of sim::run" : text("by worker ", user));
  }
  void check_in(int rank, std::string_view call, std::string_view bucket) {
    check_turn(rank, call);
    if (state_of(rank).dead) throw killed{};
    detail::fail_unwound(state_of(rank));
    if (failed_) throw failure_error(call, bucket);
  }

  /// All ranks have arrived.
  void perform(record& r, i64 sequence) {
    limber::detail::perform(r.what, r.buffers, 0, limber::detail::extent(r.what, size()));
    if (r.what.what == operation::split) make_split_groups(r);
    operation_cost const p =
        cost_of(r.what, engine_->what().reduce, over_, size(), engine_->what().byte_scale);
    r.performed = true;
    r.end = free_ = std::max(engine_->now(), free_) + p.seconds;
    i64 const bytes = std::llround(p.bytes);
    for (auto const& m : members_) {
      engine_->at(m.worker).counts.bytes_sent += bytes;
      ++engine_->at(m.worker).counts.operations;
    }
    if (size() > 1)
      engine_->plan(r.end, at(0).worker, [self = shared_from_this(), sequence] { self->ended(sequence); });
  }

  /// Wakes the workers that wait for `sequence` or an earlier operation.
  void ended(i64 sequence) {
    if (cancelled_at_ < engine_->now()) return;
    for (auto const& m : members_) {
      worker_state const& s = engine_->at(m.worker);
      bool const waits =
          s.waits_for.where == this && s.waits_for.sequence > 0 && s.waits_for.sequence <= sequence;
      if (waits || s.polling) engine_->wake(m.worker);
    }
  }

  void make_split_groups(record const& r) {
    std::map<int, std::vector<int>> ranks;
    for (int k = 0; k < size(); ++k) ranks[r.colors[static_cast<std::size_t>(k)]].push_back(k);
    for (auto const& [color, list] : ranks) {
      std::vector<int> workers;
      for (int const k : list) workers.push_back(at(k).worker);
      auto const made = make(engine_, workers);
      for (std::size_t k = 0; k < list.size(); ++k) at(list[k]).next = {made, static_cast<int>(k)};
    }
  }

  /// Operation `sequence` has completed, or the group failed.
  bool over(int rank, i64 sequence) {
    check_turn(rank, "wait");
    records_.advance(horizon());
    if (records_.completed() >= sequence) return true;
    if (!failed_ && (left_count_ > 0 || known_deaths_ > 0)) check_completable(sequence);
    return failed_.has_value();
  }

  /// Fails the group if operation `sequence` or an earlier one cannot complete any more.
  void check_completable(i64 sequence) {
    for (i64 s = records_.completed() + 1; s <= sequence; ++s) {
      record& r = *records_.find(s);
      for (int k = 0; k < size(); ++k)
        if (state_of(k).death_known && !at(k).left)
          return fail(k, text(death_message(k),
                              r.here[static_cast<std::size_t>(k)] != 0 ? " during " : " without calling ",
                              text_of(r.what)));
      std::vector<int> left;
      for (int k = 0; k < size(); ++k)
        if (r.here[static_cast<std::size_t>(k)] == 0 && at(k).left) left.push_back(k);
      if (!left.empty())
        return fail(left[0], text(rank_name(left), " left without calling ", text_of(r.what)));
    }
  }

  std::shared_ptr<engine> engine_;
  std::vector<member> members_;
  record_list records_;
  link over_{};
  double free_ = 0;  ///< when the last complete operation ends
  double cancelled_at_ =
      infinite;  ///< operations that end later never complete: a rank died, or the group failed
  int left_count_ = 0, known_deaths_ = 0;
  std::optional<group_failure> failed_;
  std::list<std::shared_ptr<shrinking>> shrinkings_;
};

/// A worker continued after an exception had unwound open requests: other ranks must not wait for it, nor use
/// its memory.
inline void fail_unwound(worker_state& s) {
  for (auto const& end : std::exchange(s.unwound_handles, {}))
    end.where->fail_by_exception(end.rank,
                                 "was left by an exception with operations in flight, and continued");
}

}  // namespace limber::sim::detail

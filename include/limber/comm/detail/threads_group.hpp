// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The state that the ranks of one `threads` communicator share.
///
/// Operations are numbered from 1 and stored in a ring of records until they are complete. The rank that
/// arrives last at an operation starts its work; waiting ranks take pieces of it. Every element is computed
/// once, in rank order, and stored to all outputs, so no rank wakes between arrival and completion. Once a
/// group has failed or is halted, no new piece is taken, and no rank whose memory is in use returns before
/// `working_` is 0.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/threads_handle.hpp>
#include <limber/comm/detail/threads_record.hpp>
#include <limber/comm/detail/threads_world_state.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <atomic>
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

namespace limber::threads::detail {

using limber::detail::operation;
using limber::detail::rank_buffers;
using limber::detail::signature;

/// A rank of a group.
struct place {
  shared_group where{};
  int rank = 0;
};

class group {
 public:
  /// @pre the world is locked, or not shared yet
  [[nodiscard]] static shared_group make(std::shared_ptr<world_state> const& w,
                                         std::vector<int> const& world_ranks) {
    return shared_group(new group(w, world_ranks));
  }
  group(group const&) = delete;
  group& operator=(group const&) = delete;

  [[nodiscard]] world_state& world() const noexcept { return *world_; }
  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.size()); }

  /// Registers the rank's part of its next operation; the last rank to arrive works on it until all pieces
  /// are taken. Returns the operation's number.
  i64 start(int rank, signature const& s, rank_buffers mine, std::string_view bucket, int color = 0) {
    world_lock lock(*world_);
    check_in(lock, rank, limber::detail::name_of(s.what), bucket);
    i64 const sequence = ++at(rank).started;
    record& r = ring_.fetch(sequence, completed_, members_.size());
    if (r.arrived == 0) {
      r.what = s;
      r.first = rank;
    } else if (r.what != s) {
      // If two ranks agree and one differs, that one is at fault.
      int const other = r.first;
      fail(lock, r.arrived == 1 ? std::max(rank, other) : rank,
           text(rank_name(std::min(rank, other)), " called ", text_of(rank < other ? s : r.what), " where ",
                rank_name(std::max(rank, other)), " called ", text_of(rank < other ? r.what : s)));
      throw failure_error(limber::detail::name_of(s.what), bucket);
    }
    auto const i = static_cast<std::size_t>(rank);
    r.buffers[i] = mine;
    r.colors[i] = color;
    r.here[i] = 1;
    if (++r.arrived == size()) {
      ready_ = sequence;
      distribute(lock, r);
      while (record* const next = unclaimed()) work(lock, *next);
    }
    return sequence;
  }

  /// Waits for operation `sequence`, and works on it or an earlier one meanwhile.
  void finish(int rank, i64 sequence, operation what, std::string_view bucket) {
    wait_timer p{world_->now()};
    world_lock lock(*world_);
    bool timed_out = false;
    while (completed_ < sequence) {
      if (record* const next = unclaimed()) {
        work(lock, *next);
        continue;
      }
      if (failed_ && working_ == 0) throw failure_error(limber::detail::name_of(what), bucket);
      if (!failed_) check_completable(lock, sequence, timed_out);
      if (failed_ && working_ == 0) continue;
      timed_out = wait_for_event(lock, rank, failed_ || halted_ ? any_event : sequence, p);
    }
  }

  /// True if finish() would return or throw without waiting.
  bool done(i64 sequence, wait_timer& p) {
    double const now = world_->now();
    world_lock lock(*world_);
    if (completed_ < sequence && !failed_) {
      if (!p.running || p.seen != completed_) p = {now, true, completed_};
      check_completable(lock, sequence, now - p.since > world_->how.deadline);
    }
    return completed_ >= sequence || (failed_ && working_ == 0);
  }

  /// A request was destroyed before it was waited for. Returns when no rank uses its memory.
  void drop(int rank, operation what, std::string_view bucket, bool unwinding) {
    world_lock lock(*world_);
    if (unwinding && state_of(rank).supervised)
      halt(lock, rank);
    else
      fail(lock, rank,
           text(rank_name(rank), unwinding ? " was left by an exception with its " : " destroyed its ",
                limber::detail::name_of(what), bucket.empty() ? "" : " of '", bucket,
                bucket.empty() ? "" : "'", unwinding ? " in flight" : " before it was waited for"));
    wait_timer p{world_->now()};
    while (working_ > 0) wait_for_event(lock, rank, any_event, p);
  }

  /// The handle of `rank` was destroyed.
  void leave(int rank, bool unwinding) {
    world_lock lock(*world_);
    at(rank).left = true;
    ++left_count_;
    wake_all(lock);
    if (unwinding && state_of(rank).supervised)
      halt(lock, rank);
    else if (unwinding)
      fail(lock, rank, text(rank_name(rank), " was left by an exception"));
  }

  void revoke(std::string const& reason) {
    world_lock lock(*world_);
    fail(lock, -1, reason);
  }

  /// A rank of the world has failed: fails every group that it had not left before.
  static void fail_with_rank(world_state& w, int world_rank, std::string const& reason) {
    world_lock lock(w);
    fail_with_rank(lock, w, world_rank, reason, false);
  }

  /// A supervised rank continued after an exception had unwound open requests: fails its groups.
  static void fail_unwound(world_state& w, int world_rank) {
    world_lock lock(w);
    fail_unwound(lock, w, world_rank);
  }

  /// The new place of `rank` after a split.
  [[nodiscard]] place take_place(int rank) {
    world_lock lock(*world_);
    return std::exchange(at(rank).next, {});
  }

  /// A new group of those not in `lost`; the old one has failed afterwards.
  [[nodiscard]] place shrink(int rank, std::vector<int> const& lost);

  void send(int rank, int peer, const_tensor_view in);
  void recv(int rank, int peer, tensor_view out);
  void post(int rank, int peer, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] std::optional<message> poll(int rank, i64 tag);
  void listen(int rank);

 private:
  friend class shared_group;

  static constexpr i64 any_event = std::numeric_limits<i64>::max();

  struct tensor_message {
    dtype type;
    i64 length;
    std::vector<std::byte> bytes;
  };

  struct member {
    int world_rank = 0;
    bool left = false;
    i64 started = 0;
    i64 awaits = 0;  ///< the operation it sleeps for, `anything`, or 0 when it does not sleep
    place next{};
    std::map<int, std::deque<tensor_message>> tensor_messages{};
    std::map<i64, std::deque<message>> mailbox{};
    i64 mailbox_arrivals = 0;  ///< number of messages that have arrived
    i64 mailbox_seen = 0;      ///< of those, when `listen` last returned
  };

  struct group_failure {
    int rank;
    std::string reason;
  };

  struct shrinking {
    std::vector<int> lost;
    std::vector<char> here;
    shared_group next{};
    std::optional<group_failure> failed{};
  };

  group(std::shared_ptr<world_state> w, std::vector<int> const& world_ranks)
      : world_(std::move(w)), members_(world_ranks.size()) {
    for (std::size_t r = 0; r < world_ranks.size(); ++r) members_[r].world_rank = world_ranks[r];
    world_->groups.push_back(this);
  }
  ~group() {
    world_lock const lock(*world_);
    std::erase(world_->groups, this);
  }

  [[nodiscard]] member& at(int rank) noexcept { return members_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] rank_state& state_of(int rank) noexcept {
    return world_->ranks[static_cast<std::size_t>(at(rank).world_rank)];
  }
  [[nodiscard]] std::string rank_name(int rank) {
    int const s = at(rank).world_rank;
    return s == rank ? text("rank ", rank) : text("rank ", rank, " (rank ", s, " of the world)");
  }
  [[nodiscard]] std::string rank_name(std::vector<int> const& ranks) {
    std::string out;
    for (int const r : ranks) out += text(out.empty() ? "" : ", ", rank_name(r));
    return out;
  }
  [[nodiscard]] std::string exception_message() {
    return text(rank_name(failed_rank_), " was left by an exception with operations in flight");
  }
  [[nodiscard]] error failure_error(std::string_view call, std::string_view bucket) const {
    return error({"threads", std::string(call), 0, failed_->rank, std::string(bucket), failed_->reason});
  }

  /// All ranks have arrived: prepares the work and wakes other ranks to share it.
  void distribute(world_lock& lock, record& r) {
    r.cut();
    if (r.what.what == operation::split) make_split_groups(r);
    if (r.pieces == 0) return complete(lock);
    i64 helpers = std::min<i64>(r.pieces - 1, world_->helpers);
    for (auto& m : members_) {
      if (helpers == 0) break;
      if (m.awaits == 0 || m.awaits == any_event) continue;
      lock.wake(world_->ranks[static_cast<std::size_t>(m.world_rank)]);
      --helpers;
    }
  }

  void make_split_groups(record const& r) {
    std::map<int, std::vector<int>> ranks;
    for (int k = 0; k < size(); ++k) ranks[r.colors[static_cast<std::size_t>(k)]].push_back(k);
    for (auto const& [color, list] : ranks) {
      std::vector<int> world_ranks;
      for (int const k : list) world_ranks.push_back(at(k).world_rank);
      auto const made = make(world_, world_ranks);
      for (std::size_t k = 0; k < list.size(); ++k) at(list[k]).next = {made, static_cast<int>(k)};
    }
  }

  /// The oldest operation with a piece that no rank has taken.
  [[nodiscard]] record* unclaimed() noexcept {
    if (failed_ || halted_) return nullptr;
    for (i64 s = completed_ + 1; s <= ready_; ++s)
      if (ring_[s].claimed < ring_[s].pieces) return &ring_[s];
    return nullptr;
  }

  void work(world_lock& lock, record& r) {
    i64 const piece = r.claimed++;
    ++working_;
    lock.unlock();
    r.perform(piece);
    lock.lock();
    --working_;
    if (++r.finished == r.pieces) complete(lock);
    if ((failed_ || halted_) && working_ == 0) wake_all(lock);
  }

  void complete(world_lock& lock) {
    while (completed_ < ready_ && ring_[completed_ + 1].finished == ring_[completed_ + 1].pieces)
      ++completed_;
    for (auto& m : members_)
      if (m.awaits != 0 && m.awaits <= completed_)
        lock.wake(world_->ranks[static_cast<std::size_t>(m.world_rank)]);
  }

  void wake_all(world_lock& lock) {
    for (auto& m : members_)
      if (m.awaits != 0) lock.wake(world_->ranks[static_cast<std::size_t>(m.world_rank)]);
  }

  void fail(world_lock& lock, int rank, std::string reason) {
    if (failed_) return;
    failed_ = group_failure{rank, std::move(reason)};
    wake_all(lock);
  }

  /// Stops all work until threads::run knows the exception of `rank`.
  void halt(world_lock& lock, int rank) {
    if (failed_ || halted_) return;
    halted_ = true;
    failed_rank_ = rank;
    state_of(rank).unwinding = true;
    wake_all(lock);
  }

  static void fail_with_rank(world_lock& lock, world_state& w, int world_rank, std::string const& reason,
                             bool only_halted) {
    w.ranks[static_cast<std::size_t>(world_rank)].unwinding = false;
    for (group* const g : w.groups)
      for (int r = 0; r < g->size(); ++r) {
        if (g->at(r).world_rank != world_rank) continue;
        bool const caused_by_it = g->halted_ && g->failed_rank_ == r;
        if (caused_by_it || (!only_halted && !g->at(r).left))
          g->fail(lock, r, text(g->rank_name(r), " ", reason));
      }
  }
  static void fail_unwound(world_lock& lock, world_state& w, int world_rank) {
    if (w.ranks[static_cast<std::size_t>(world_rank)].unwinding)
      fail_with_rank(lock, w, world_rank, "was left by an exception with operations in flight, and continued",
                     true);
  }

  void check_in(world_lock& lock, int rank, std::string_view call, std::string_view bucket) {
    fail_unwound(lock, *world_, at(rank).world_rank);
    if (failed_) throw failure_error(call, bucket);
  }

  /// Fails the group if operation `sequence` or an earlier one cannot complete any more.
  void check_completable(world_lock& lock, i64 sequence, bool timed_out) {
    if (halted_) {
      if (timed_out) fail(lock, failed_rank_, exception_message());
      return;
    }
    for (i64 s = completed_ + 1; s <= sequence && (timed_out || left_count_ > 0); ++s) {
      record& r = ring_[s];
      if (r.arrived == size()) continue;
      std::vector<int> missing, left;
      for (int k = 0; k < size(); ++k)
        if (r.here[static_cast<std::size_t>(k)] == 0) (at(k).left ? left : missing).push_back(k);
      std::string const call = text_of(r.what);
      if (!left.empty()) return fail(lock, left[0], text(rank_name(left), " left without calling ", call));
      if (timed_out)
        return fail(lock, missing[0],
                    text(rank_name(missing), " did not call ", call, " within ", world_->how.deadline, " s"));
    }
  }

  /// Sleeps until an event. True if the deadline has passed since `p` began.
  bool wait_for_event(world_lock& lock, int rank, i64 awaits, wait_timer& p) {
    if (!p.running) {
      p.running = true;
      p.seen = completed_;
    }
    at(rank).awaits = awaits;
    bool const over = lock.sleep(state_of(rank), world_->poll_interval);
    at(rank).awaits = 0;
    if (!over) return false;
    lock.unlock();
    double const now = world_->now();
    lock.lock();
    if (p.seen != completed_) p = {now, true, completed_};
    return now - p.since > world_->how.deadline;
  }

  std::atomic<long> owners_{1};
  std::shared_ptr<world_state> world_;
  std::vector<member> members_;
  operation_ring ring_;
  i64 ready_ = 0;      ///< operations that all ranks have arrived at
  i64 completed_ = 0;  ///< operations whose results are complete
  int working_ = 0;    ///< ranks that read or write tensors now
  int left_count_ = 0;
  bool halted_ = false;
  int failed_rank_ = -1;
  std::optional<group_failure> failed_;
  std::list<std::shared_ptr<shrinking>> shrinkings_;
};

}  // namespace limber::threads::detail

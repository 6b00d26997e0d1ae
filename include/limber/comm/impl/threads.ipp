// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/local_group.hpp>
#include <limber/comm/threads.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::threads {

namespace detail {

// How the ranks of `threads` wait, and how they share the work of an operation.
//
// The rank that arrives last at an operation starts its work; waiting ranks take pieces of it. Every element
// is computed once, in rank order, and stored to all outputs, so no rank wakes between arrival and
// completion. Once a group has failed or is halted, no new piece is taken, and no rank whose memory is in
// use returns before `working_` is 0.

using namespace limber::detail;

/// One rank of the world, in all of its groups.
struct rank_state {
  std::condition_variable wakeup;
  bool taken = false;
  bool supervised = false;  ///< threads::run reports why this rank failed
};

/// The state shared by all groups of a world. One mutex guards everything but the elements of tensors.
struct world_state : local_world {
  world_state(int n, clock_function c, double seconds)
      : local_world{"threads", "left", " (rank ", " of the world)", static_cast<std::size_t>(n), seconds},
        clock(std::move(c)),
        // A virtual clock does not wake sleeping ranks, so they check it periodically.
        poll_interval(std::clamp(seconds / 20, 0.001, 0.1)),
        ranks(static_cast<std::size_t>(n)) {
    unsigned const cores = std::thread::hardware_concurrency();
    helpers = cores > 1 ? static_cast<int>(cores) - 1 : 0;
    unwinding.resize(ranks.size());
  }

  void lock() { mutex.lock(); }
  /// Notifies ranks after the mutex is released, so that they do not wake only to wait for it.
  [[gnu::noinline]] void unlock() {
    rank_state* woken[capacity];
    std::size_t count = std::exchange(waking, 0);
    std::copy_n(to_wake, count, woken);
    mutex.unlock();
    while (count > 0) woken[--count]->wakeup.notify_all();
  }

  std::mutex mutex;
  clock_function clock;
  std::chrono::duration<double> poll_interval;
  int helpers;  ///< sleeping ranks that are woken to share the work of a large operation
  std::vector<rank_state> ranks;

  static constexpr std::size_t capacity = 128;
  rank_state* to_wake[capacity];
  std::size_t waking = 0;
};

class group final : public local_group {
 public:
  group(std::shared_ptr<world_state> w, std::vector<int> const& world_ranks)
      : local_group(*w, world_ranks), all_(std::move(w)), awaits_(world_ranks.size()) {
    all_->groups.push_back(this);
  }
  ~group() override {
    std::scoped_lock const lock(all_->mutex);
    std::erase(all_->groups, this);
  }

  [[nodiscard]] world_state& world() const noexcept { return *all_; }

 private:
  static constexpr i64 any_event = std::numeric_limits<i64>::max();

  [[nodiscard]] rank_state& state_of(int rank) noexcept {
    return all_->ranks[static_cast<std::size_t>(at(rank).world_rank)];
  }
  [[nodiscard]] i64& awaits(int rank) noexcept { return awaits_[static_cast<std::size_t>(rank)]; }

  void lock() noexcept override { all_->lock(); }
  void unlock() noexcept override { all_->unlock(); }
  [[nodiscard, gnu::noinline]] double now() const override { return all_->clock(); }
  /// Sleeps until woken, for at most `poll_interval`.
  bool wait(int rank, awaited_event const& e, wait_timer& t) override {
    if (!t.running) {
      t.running = true;
      t.seen = completed_;
    }
    if (all_->waking > 0) {  // those to be woken come first
      unlock();
      lock();
      return false;
    }
    awaits(rank) = e.sequence == 0 || failed_ || halted_ ? any_event : e.sequence;
    std::unique_lock held(all_->mutex, std::adopt_lock);
    bool const over = state_of(rank).wakeup.wait_for(held, all_->poll_interval) == std::cv_status::timeout;
    held.release();
    awaits(rank) = 0;
    if (!over) return false;
    unlock();
    double const time = now();
    lock();
    if (t.seen != completed_) t = {time, true, completed_};
    return time - t.since > all_->deadline;
  }
  void wake(int rank) override {
    if (awaits(rank) == 0) return;
    rank_state& s = state_of(rank);
    if (all_->waking == world_state::capacity)
      s.wakeup.notify_all();
    else
      all_->to_wake[all_->waking++] = &s;
  }
  [[nodiscard]] bool supervised(int rank) const override {
    return all_->ranks[static_cast<std::size_t>(at(rank).world_rank)].supervised;
  }
  /// Cuts the work into pieces of about 256 KiB of traffic, wakes other ranks to share it, and works until
  /// all pieces are taken.
  void perform(record& r) override {
    ready_ = r.sequence;
    i64 const traffic = 2 * size() * size_of(r.what.type), whole = extent(r.what, size());
    r.piece = std::max<i64>(1, (i64{256} << 10) / traffic / reduce_tile) * reduce_tile;
    r.pieces = (whole + r.piece - 1) / r.piece;
    if (r.pieces == 0) complete();
    i64 helpers = std::min<i64>(r.pieces - 1, all_->helpers);
    for (int k = 0; k < size() && helpers > 0; ++k) {
      if (awaits(k) == 0 || awaits(k) == any_event) continue;
      wake(k);
      --helpers;
    }
    while (work()) {}
  }
  /// Takes a piece of the oldest operation that has one.
  bool work() override {
    if (failed_ || halted_) return false;
    i64 s = completed_ + 1;
    while (s <= ready_ && records_[s].claimed == records_[s].pieces) ++s;
    if (s > ready_) return false;
    record& r = records_[s];
    i64 const first = r.piece * r.claimed++;
    ++working_;
    unlock();
    limber::detail::perform(r.what, r.buffers, first, std::min(first + r.piece, extent(r.what, size())));
    lock();
    --working_;
    if (++r.finished == r.pieces) complete();
    if ((failed_ || halted_) && working_ == 0) wake_all();
    return true;
  }
  [[nodiscard]] bool working() const override { return working_ > 0; }
  [[nodiscard]] bool is_complete(record const& r) const override { return r.finished == r.pieces; }
  [[nodiscard]] shared_group make(std::vector<int> const& world_ranks) override {
    return shared_group(new group(all_, world_ranks));
  }
  void complete() {
    advance();
    for (int k = 0; k < size(); ++k)
      if (awaits(k) <= completed_) wake(k);
  }

  std::shared_ptr<world_state> all_;
  std::vector<i64> awaits_;  ///< by rank: the operation it sleeps for, any_event, or 0 when it does not sleep
  i64 ready_ = 0;            ///< operations that all ranks have arrived at
  int working_ = 0;          ///< ranks that read or write tensors now
};

[[nodiscard]] LIMBER_FN world_state& state_of(shared_group const& g) {
  return static_cast<group*>(g.get())->world();
}

}  // namespace detail

LIMBER_COLD LIMBER_FN world::world(int size, options how) {
  expects(size >= 1, "threads: a world needs at least 1 rank, got ", size);
  limber::detail::check_waiting("threads", how.deadline, how.clock);
  std::vector<int> world_ranks(static_cast<std::size_t>(size));
  std::iota(world_ranks.begin(), world_ranks.end(), 0);
  auto state = std::make_shared<detail::world_state>(size, std::move(how.clock), how.deadline);
  all_ = limber::detail::shared_group(new detail::group(std::move(state), world_ranks));
}
LIMBER_COLD LIMBER_FN world::~world() {
  if (!all_) return;
  for (int r = 0; r < size(); ++r)
    if (take(r)) all_->leave(r, false);
}

LIMBER_FN int world::size() const noexcept { return all_->size(); }

LIMBER_COLD LIMBER_FN communicator world::communicator(int rank) {
  limber::detail::check_rank("threads", "rank", rank, size());
  expects(take(rank), "threads: the communicator of rank ", rank, " was taken before");
  return threads::communicator({all_, rank});
}

LIMBER_COLD LIMBER_FN bool world::take(int rank) {
  detail::world_state& state = detail::state_of(all_);
  std::scoped_lock const lock(state);
  return !std::exchange(state.ranks[static_cast<std::size_t>(rank)].taken, true);
}

LIMBER_COLD LIMBER_FN void run(int n, function_ref<void(communicator&)> f, options how) {
  world all(n, std::move(how));
  detail::world_state& state = detail::state_of(all.all_);
  std::mutex guard;
  std::exception_ptr first;
  auto const fails = [&](int rank, std::string const& reason) {
    {
      std::scoped_lock const lock(guard);
      if (!first) first = std::current_exception();
    }
    // Other ranks fail only after the first exception is stored.
    std::scoped_lock const lock(state);
    detail::group::fail_with_rank(state, rank, reason, false);
  };
  auto const work = [&](int rank) {
    auto mine = all.communicator(rank);
    {
      std::scoped_lock const lock(state);
      state.ranks[static_cast<std::size_t>(rank)].supervised = true;
    }
    try {
      f(mine);
      std::scoped_lock const lock(state);
      detail::group::fail_unwound(state, rank);
    } catch (std::exception const& e) { fails(rank, text("threw: ", e.what())); } catch (...) {
      fails(rank, "threw something that is no std::exception");
    }
  };
  std::vector<std::thread> team;
  try {
    team.reserve(static_cast<std::size_t>(n));
    for (int r = 0; r < n; ++r) team.emplace_back(work, r);
  } catch (std::exception const& e) {
    for (int r = static_cast<int>(team.size()); r < n; ++r) fails(r, text("got no thread: ", e.what()));
  }
  for (auto& t : team) t.join();
  if (first) std::rethrow_exception(first);
}

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::threads

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/local_group.hpp>
#include <limber/comm/threads.hpp>
#include <limber/core/order.hpp>

#include <ctime>
#include <exception>

// The threads of POSIX: <thread>, <mutex> and <condition_variable> cost a unit 0.7 s and 70 MB.
#include <pthread.h>
#include <unistd.h>

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
  ::pthread_cond_t wakeup;
  bool taken = false;
  bool supervised = false;  ///< threads::run reports why this rank failed
  ::pthread_t thread{};     ///< of threads::run
  int rank = 0;
  function_ref<void(int)> const* work = nullptr;

  rank_state() {
    ::pthread_condattr_t how;
    ::pthread_condattr_init(&how);
#if !defined(__APPLE__)
    ::pthread_condattr_setclock(&how, CLOCK_MONOTONIC);
#endif
    ::pthread_cond_init(&wakeup, &how);
    ::pthread_condattr_destroy(&how);
  }
  rank_state(rank_state const&) = delete;
  rank_state& operator=(rank_state const&) = delete;
  ~rank_state() { ::pthread_cond_destroy(&wakeup); }
};

/// The state shared by all groups of a world. One mutex guards everything but the elements of tensors.
struct world_state : local_world {
  world_state(int n, clock_function c, double seconds)
      : local_world{"threads", "left", " (rank ", " of the world)", static_cast<std::size_t>(n), seconds},
        clock(std::move(c)),
        // A virtual clock does not wake sleeping ranks, so they check it periodically.
        poll_interval(least(greatest(seconds / 20, 0.001), 0.1)),
        ranks(static_cast<std::size_t>(n)) {
    long const cores = ::sysconf(_SC_NPROCESSORS_ONLN);
    helpers = cores > 1 ? static_cast<int>(cores) - 1 : 0;
    unwinding.resize(ranks.size());
  }

  world_state(world_state const&) = delete;
  world_state& operator=(world_state const&) = delete;
  ~world_state() { ::pthread_mutex_destroy(&guard); }

  void lock() noexcept { ::pthread_mutex_lock(&guard); }
  /// Notifies ranks after the mutex is released, so that they do not wake only to wait for it.
  [[gnu::noinline]] void unlock() noexcept {
    rank_state* woken[capacity];
    std::size_t count = std::exchange(waking, 0);
    for (std::size_t k = 0; k < count; ++k) woken[k] = to_wake[k];
    ::pthread_mutex_unlock(&guard);
    while (count > 0) ::pthread_cond_broadcast(&woken[--count]->wakeup);
  }
  /// Sleeps until the rank is woken, for at most `poll_interval`. @return false if that is over. @pre locked
  bool sleep(rank_state& s) noexcept {
#if defined(__APPLE__)
    double const until = poll_interval;
#else
    double const until = steady_seconds() + poll_interval;
#endif
    auto const whole = static_cast<std::time_t>(until);
    ::timespec const t{whole, static_cast<long>((until - static_cast<double>(whole)) * 1e9)};
#if defined(__APPLE__)
    return ::pthread_cond_timedwait_relative_np(&s.wakeup, &guard, &t) == 0;
#else
    return ::pthread_cond_timedwait(&s.wakeup, &guard, &t) == 0;
#endif
  }

  ::pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
  clock_function clock;
  double poll_interval;  ///< seconds
  int helpers;           ///< sleeping ranks that are woken to share the work of a large operation
  std::vector<rank_state> ranks;

  static constexpr std::size_t capacity = 128;
  rank_state* to_wake[capacity];
  std::size_t waking = 0;
};

struct locked {
  explicit locked(world_state& w) noexcept : world(w) { world.lock(); }
  locked(locked const&) = delete;
  locked& operator=(locked const&) = delete;
  ~locked() { world.unlock(); }
  world_state& world;
};

class group final : public local_group {
 public:
  /// @param owned  keeps `w`
  group(world_state& w, shared_owner owned, std::vector<int> const& world_ranks)
      : local_group(w, world_ranks), all_(&w), owned_(std::move(owned)), awaits_(world_ranks.size()) {}
  ~group() override {
    locked const here(*all_);
    forget();
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
    bool const woken = all_->sleep(state_of(rank));
    awaits(rank) = 0;
    if (woken) return false;
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
      ::pthread_cond_broadcast(&s.wakeup);
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
    r.piece = greatest<i64>(1, (i64{256} << 10) / traffic / reduce_tile) * reduce_tile;
    r.pieces = (whole + r.piece - 1) / r.piece;
    if (r.pieces == 0) complete();
    i64 helpers = least<i64>(r.pieces - 1, all_->helpers);
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
    limber::detail::perform(r.what, r.ranks, first, least(first + r.piece, extent(r.what, size())));
    lock();
    --working_;
    if (++r.finished == r.pieces) complete();
    if ((failed_ || halted_) && working_ == 0) wake_all();
    return true;
  }
  [[nodiscard]] bool working() const override { return working_ > 0; }
  [[nodiscard]] bool is_complete(record const& r) const override { return r.finished == r.pieces; }
  [[nodiscard]] shared_group make(std::vector<int> const& world_ranks) override {
    return shared_group(new group(*all_, owned_, world_ranks));
  }
  void complete() {
    advance();
    for (int k = 0; k < size(); ++k)
      if (awaits(k) <= completed_) wake(k);
  }

  world_state* all_;
  shared_owner owned_;
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
  for (int r = 0; r < size; ++r) world_ranks[static_cast<std::size_t>(r)] = r;
  auto* const state = new detail::world_state(size, std::move(how.clock), how.deadline);
  limber::detail::shared_owner owned(std::in_place, limber::detail::owner<detail::world_state>(state));
  all_ = limber::detail::shared_group(new detail::group(*state, std::move(owned), world_ranks));
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
  detail::locked const here(state);
  return !std::exchange(state.ranks[static_cast<std::size_t>(rank)].taken, true);
}

LIMBER_COLD LIMBER_FN void run(int n, function_ref<void(communicator&)> f, options how) {
  world all(n, std::move(how));
  detail::world_state& state = detail::state_of(all.all_);
  std::exception_ptr first;
  auto const fails = [&](int rank, std::string const& reason) {
    detail::locked const here(state);
    if (!first) first = std::current_exception();
    detail::group::fail_with_rank(state, rank, reason, false);
  };
  auto const work = [&](int rank) {
    auto mine = all.communicator(rank);
    {
      detail::locked const here(state);
      state.ranks[static_cast<std::size_t>(rank)].supervised = true;
    }
    try {
      f(mine);
      detail::locked const here(state);
      detail::group::fail_unwound(state, rank);
    } catch (std::exception const& e) { fails(rank, text("threw: ", e.what())); } catch (...) {
      fails(rank, "threw something that is no std::exception");
    }
  };
  function_ref<void(int)> const any_rank = work;
  int started = 0, code = 0;
  for (; started < n; ++started) {
    detail::rank_state& s = state.ranks[static_cast<std::size_t>(started)];
    s.rank = started;
    s.work = &any_rank;
    code = ::pthread_create(
        &s.thread, nullptr,
        [](void* of) noexcept -> void* {
          auto const& own = *static_cast<detail::rank_state const*>(of);
          (*own.work)(own.rank);
          return nullptr;
        },
        &s);
    if (code != 0) break;
  }
  if (code != 0) try {
      throw error({"threads", "run", code, started, {}, text("got no thread: ", std::strerror(code))});
    } catch (error const& e) {
      for (int r = started; r < n; ++r) fails(r, e.where().reason);
    }
  for (int r = 0; r < started; ++r) ::pthread_join(state.ranks[static_cast<std::size_t>(r)].thread, nullptr);
  if (first) std::rethrow_exception(first);
}

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::threads

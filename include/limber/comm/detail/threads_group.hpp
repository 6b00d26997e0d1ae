// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How the ranks of `threads` wait, and how they share the work of an operation.
///
/// The rank that arrives last at an operation starts its work; waiting ranks take pieces of it. Every element
/// is computed once, in rank order, and stored to all outputs, so no rank wakes between arrival and
/// completion. Once a group has failed or is halted, no new piece is taken, and no rank whose memory is in
/// use returns before `working_` is 0.

#include <limber/comm/detail/local_group.hpp>
#include <limber/comm/threads.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

namespace limber::threads::detail {

using namespace limber::detail;

/// One rank of the world, in all of its groups.
struct rank_state {
  std::condition_variable wakeup;
  bool taken = false;
  bool supervised = false;  ///< threads::run reports why this rank failed
};

/// The state shared by all groups of a world. One mutex guards everything but the elements of tensors.
struct world_state : local_world {
  world_state(int n, clock_function c, double deadline);

  void lock() { mutex.lock(); }
  /// Notifies ranks after the mutex is released, so that they do not wake only to wait for it.
  void unlock();

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
  group(std::shared_ptr<world_state> w, std::vector<int> const& world_ranks);
  ~group() override;

  [[nodiscard]] world_state& world() const noexcept { return *all_; }

 private:
  static constexpr i64 any_event = std::numeric_limits<i64>::max();

  [[nodiscard]] rank_state& state_of(int rank) noexcept {
    return all_->ranks[static_cast<std::size_t>(at(rank).world_rank)];
  }
  [[nodiscard]] i64& awaits(int rank) noexcept { return awaits_[static_cast<std::size_t>(rank)]; }

  void lock() noexcept override { all_->lock(); }
  void unlock() noexcept override { all_->unlock(); }
  [[nodiscard]] double now() const override;
  bool wait(int rank, awaited_event const& e, wait_timer& t) override;
  void wake(int rank) override;
  [[nodiscard]] bool supervised(int rank) const override {
    return all_->ranks[static_cast<std::size_t>(at(rank).world_rank)].supervised;
  }
  void perform(record& r) override;
  bool work() override;
  [[nodiscard]] bool working() const override { return working_ > 0; }
  [[nodiscard]] bool is_complete(record const& r) const override { return r.finished == r.pieces; }
  [[nodiscard]] shared_group make(std::vector<int> const& world_ranks) override {
    return shared_group(new group(all_, world_ranks));
  }
  void complete();

  std::shared_ptr<world_state> all_;
  std::vector<i64> awaits_;  ///< by rank: the operation it sleeps for, any_event, or 0 when it does not sleep
  i64 ready_ = 0;            ///< operations that all ranks have arrived at
  int working_ = 0;          ///< ranks that read or write tensors now
};

}  // namespace limber::threads::detail

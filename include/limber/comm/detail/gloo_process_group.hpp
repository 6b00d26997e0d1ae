// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One rank's part of a `gloo` group.
///
/// Calls are numbered from 1 and queued. A rank that waits for a call makes it in its own thread, so a
/// blocking call needs no thread switch; worker threads make the calls that nobody waits for: at once if
/// several are queued or the last ones were made by a worker, else within a millisecond. The thread
/// receives messages and checks the deadline. A failure is sent to all ranks before it takes effect, so that
/// they report its cause and not the end of a connection.

#include <limber/comm/detail/gloo_failure_detector.hpp>
#include <limber/comm/detail/gloo_operation.hpp>
#include <limber/comm/detail/gloo_rendezvous.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/detail/receive_queue.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace limber::gloo_engine::detail {

class process_group final : public limber::detail::process_group {
 public:
  process_group(std::shared_ptr<shared_setup> setup, std::string name, int rank, int size, connections with)
      : limber::detail::process_group("gloo"),
        setup_(std::move(setup)),
        how_(setup_->how),
        name_(std::move(name)),
        rank_(rank),
        size_(size),
        connections_(std::move(with)),
        failure_detector_(size),
        peers_(static_cast<std::size_t>(size)) {
    // A virtual clock does not wake threads, so they check it periodically.
    poll_interval_ = std::chrono::duration<double>(std::clamp(how_.deadline / 20, 0.001, 0.1));
    if (connections_.messages)
      connections_.messages->start(
          {[this](peer_event e) { on_event(std::move(e)); }, [this] { check_progress(); }},
          poll_interval_.count());
  }
  ~process_group() override;

  /// Returns when this rank is connected to all others.
  [[nodiscard]] static limber::detail::shared_group join(std::shared_ptr<shared_setup> setup,
                                                         std::string name, int rank,
                                                         participants const& who) {
    connections with = run_rendezvous(setup->where, setup->store.get(), name, rank, who, setup->how);
    return limber::detail::shared_group(new process_group(
        std::move(setup), std::move(name), rank, static_cast<int>(who.ranks.size()), std::move(with)));
  }

  [[nodiscard]] int size() const noexcept override { return size_; }

  /// Queues a call.
  i64 start(int, signature const& s, const_tensor_view in, tensor_view out) override;
  /// Makes the call and earlier ones that no thread has begun.
  void finish(group_call& c) override;
  [[nodiscard]] bool done(group_call& c) override;
  void drop(group_call& c, bool unwinding) noexcept override;

  void send(int, int peer, const_tensor_view in) override;
  void recv(int, int peer, tensor_view out) override;
  void post(int, int peer, i64 tag, std::span<std::byte const> bytes) override;
  [[nodiscard]] std::optional<message> poll(int, i64 tag) override;
  void listen(int) override;

  void revoke(std::string const& reason) override {
    std::scoped_lock const lock(mutex_);
    fail({-1, reason});
  }
  [[nodiscard]] limber::detail::place split(int, int color) override;
  [[nodiscard]] limber::detail::place shrink(int, std::span<int const> lost) override;

  [[nodiscard]] std::vector<int> broken() const {
    std::scoped_lock const lock(mutex_);
    std::vector<int> out;
    for (int r = 0; r < size_; ++r)
      if (peers_[static_cast<std::size_t>(r)].broken) out.push_back(r);
    return out;
  }

 private:
  enum class state : std::uint8_t { queued, running, ended, failed };

  struct call {
    signature what;
    rank_buffers memory;
    std::string_view bucket;
    state now = state::queued;
  };
  struct peer_state {
    bool left = false;    ///< has left the group
    bool broken = false;  ///< its connection ended before it left
    i64 started = 0;      ///< calls it had begun when it left
  };

  /// This rank's part in a new group of `who`, whose ranks are those of this group.
  [[nodiscard]] limber::detail::place make_subgroup(char const* called, std::string name, participants who);
  /// Why `peer` cannot make another call; empty if it may.
  [[nodiscard]] std::string absence_reason(int peer) const {
    std::scoped_lock const lock(mutex_);
    auto const& p = peers_[static_cast<std::size_t>(peer)];
    if (p.broken) return text(connection_lost(peer), "; shrink without it as well");
    if (p.left) return text("rank ", peer, " left as well; shrink without it");
    return {};
  }

  [[nodiscard]] peer_state& peer(int r) noexcept { return peers_[static_cast<std::size_t>(r)]; }
  [[nodiscard]] call& at(i64 sequence) noexcept {
    return calls_[static_cast<std::size_t>(sequence - completed_ - 1)];
  }
  [[nodiscard]] bool may_take() const noexcept {
    return !failed_ && taken_ < started_ && running_ < how_.lanes;
  }
  [[nodiscard]] static std::string connection_lost(int r) {
    return text("the connection to rank ", r, " was lost: its process has ended or is out of reach");
  }
  [[nodiscard]] std::string call_text(i64 sequence) const {
    if (sequence > started_ || sequence <= started_ - static_cast<i64>(recent_.size())) return {};
    return text_of(recent_[static_cast<std::size_t>(sequence) % recent_.size()]);
  }
  [[nodiscard]] bool all_others_left() const noexcept {
    int away = 0;
    for (auto const& p : peers_) away += p.left || p.broken ? 1 : 0;
    return away == size_ - 1;
  }

  /// Sleeps until an event, or until call `awaits` has ended.
  void sleep(std::unique_lock<std::mutex>& lock, i64 awaits = 0) {
    ++sleepers_;
    awaited_ = awaits;
    user_cv_.wait_for(lock, poll_interval_);
    awaited_ = 0;
    --sleepers_;
  }
  void wake() {
    if (sleepers_ > 0) user_cv_.notify_all();
  }

  void run_next(std::unique_lock<std::mutex>& lock);
  void fail_call(std::unique_lock<std::mutex>& lock, call const& c, std::exception_ptr cause);
  void run_first_worker();
  void run_worker();
  void notify_workers();
  void fail(group_failure v, bool announce = true);
  void send_failure(int r, group_failure const& v);

  void on_event(peer_event e);
  void check_progress();

  std::shared_ptr<shared_setup> setup_;  ///< outlives the connections, which use its device
  options const& how_;
  std::string name_;  ///< the prefix of its keys in the store
  int splits_ = 0;
  std::map<std::string, int> shrinks_{};
  int rank_, size_;
  connections connections_;
  std::chrono::duration<double> poll_interval_{};

  mutable std::mutex
      mutex_;  // guards all that follows; locked before the mutexes of the messages and the mesh
  std::condition_variable user_cv_, worker_cv_,
      extra_workers_cv_;  // of waiting users, the first worker, the other workers
  int sleepers_ = 0;
  i64 awaited_ = 0;
  std::deque<call> calls_;  ///< those after `completed_`
  i64 started_ = 0, taken_ = 0, completed_ = 0;
  int running_ = 0;
  bool eager_ = false;    ///< the last call was made by a worker, so the next one wakes it
  bool working_ = false;  ///< the first worker is making a call
  bool idle_ = false;     ///< the first worker sleeps until it is woken, without polling the queue
  bool stopped_ = false, closed_ = false;
  std::array<signature, 256> recent_{};
  failure_detector failure_detector_;
  std::vector<peer_state> peers_;
  limber::detail::receive_queue receive_queue_;
  std::vector<std::thread> workers_;
};

}  // namespace limber::gloo_engine::detail

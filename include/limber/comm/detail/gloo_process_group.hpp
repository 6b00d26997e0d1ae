// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One rank's part of a `gloo` group.
///
/// Calls are numbered from 1 and queued. A rank that waits for a call makes it in its own thread, so a
/// blocking call needs no thread switch; worker threads make the calls that nobody waits for: at once if
/// several are queued or the last ones were made by a worker, else within a millisecond. The I/O thread
/// receives messages and checks the deadline. A failure is sent to all ranks before it takes effect, so that
/// they report its cause and not the end of a connection.

#include <limber/comm/detail/gloo_failure_detector.hpp>
#include <limber/comm/detail/gloo_operation.hpp>
#include <limber/comm/detail/gloo_receive_queue.hpp>
#include <limber/comm/detail/gloo_rendezvous.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

class process_group {
 public:
  process_group(options how, int rank, int size, connections with)
      : how_(std::move(how)),
        rank_(rank),
        size_(size),
        connections_(std::move(with)),
        failure_detector_(size),
        peers_(static_cast<std::size_t>(size)) {
    // A virtual clock does not wake threads, so they check it periodically.
    poll_interval_ = std::chrono::duration<double>(std::clamp(how_.deadline / 20, 0.001, 0.1));
    if (connections_.messages)
      connections_.messages->start(
          {[this](int source, message_header const& head, std::vector<std::byte> bytes) {
             on_message(source, head, std::move(bytes));
           },
           [this](int source) { on_connection_lost(source); }, [this] { check_progress(); }},
          poll_interval_.count());
  }
  process_group(process_group const&) = delete;
  process_group& operator=(process_group const&) = delete;
  ~process_group();

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return size_; }

  /// Queues a call; returns its number.
  i64 start(signature const& s, rank_buffers memory, std::string_view bucket);
  /// Waits for call `sequence`; makes it and earlier calls that no thread has begun.
  void finish(i64 sequence, operation what, std::string_view bucket);
  [[nodiscard]] bool done(i64 sequence);
  /// A request was destroyed before it was waited for. Returns when its memory is no longer used.
  void drop(i64 sequence, operation what, std::string_view bucket, bool unwinding);

  void revoke(std::string const& reason) {
    std::scoped_lock const lock(mutex_);
    fail({-1, reason});
  }
  /// This rank continues in another group; the ranks in `lost` are notified, if they are alive.
  void abandon(std::vector<int> const& lost, std::string const& reason) {
    std::scoped_lock const lock(mutex_);
    if (!failed_)
      for (int const r : lost) send_failure(r, {r, reason});
    fail({lost.empty() ? -1 : lost[0], reason}, false);
  }

  void send(const_tensor_view in, int peer);
  void recv(tensor_view out, int peer);
  void post(int peer, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] std::optional<message> poll(i64 tag);
  void listen();

  [[nodiscard]] std::vector<int> broken() const {
    std::scoped_lock const lock(mutex_);
    std::vector<int> out;
    for (int r = 0; r < size_; ++r)
      if (peers_[static_cast<std::size_t>(r)].broken) out.push_back(r);
    return out;
  }
  /// Why `peer` cannot make another call; empty if it may.
  [[nodiscard]] std::string absence_reason(int peer) const {
    std::scoped_lock const lock(mutex_);
    auto const& p = peers_[static_cast<std::size_t>(peer)];
    if (p.broken) return text(connection_lost(peer), "; shrink without it as well");
    if (p.left) return text("rank ", peer, " left as well; shrink without it");
    return {};
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

  [[nodiscard]] peer_state& peer(int r) noexcept { return peers_[static_cast<std::size_t>(r)]; }
  [[nodiscard]] call& at(i64 sequence) noexcept {
    return calls_[static_cast<std::size_t>(sequence - completed_ - 1)];
  }
  [[nodiscard]] bool may_take() const noexcept {
    return !failed_ && taken_ < started_ && running_ < how_.lanes;
  }
  [[nodiscard]] error failure_error(std::string_view name, std::string_view bucket) const {
    return error({"gloo", std::string(name), 0, failed_->rank, std::string(bucket), failed_->reason});
  }
  void check_alive(std::string_view name, std::string_view bucket = {}) const {
    if (failed_) throw failure_error(name, bucket);
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

  void on_message(int source, message_header const& head, std::vector<std::byte> bytes);
  void on_connection_lost(int source);
  void check_progress();

  options how_;
  int rank_, size_;
  connections connections_;
  std::chrono::duration<double> poll_interval_{};

  mutable std::mutex
      mutex_;  // guards all that follows; locked before the mutexes of the I/O thread and the mesh
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
  std::optional<group_failure> failed_;
  failure_detector failure_detector_;
  std::vector<peer_state> peers_;
  receive_queue receive_queue_;
  std::vector<std::thread> workers_;
};

}  // namespace limber::gloo::detail

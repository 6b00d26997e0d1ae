// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One rank's state of a `gloo` group.
///
/// Calls are numbered from 1 and wait in a queue. Whoever waits for one makes it in its own thread, so
/// that a blocking call wakes nobody; a worker makes those for which nobody waits: at once when several
/// are in the queue or the last ones went that way too, else within a millisecond. The postman's thread
/// reads letters and watches the deadline. A failure is told to all ranks before it is acted upon, so
/// that they report its cause and not the end of a connection.

#include <limber/comm/detail/gloo_mailbox.hpp>
#include <limber/comm/detail/gloo_meeting.hpp>
#include <limber/comm/detail/gloo_operation.hpp>
#include <limber/comm/detail/gloo_watch.hpp>

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

class group {
 public:
  group(options how, int rank, int size, links with)
      : how_(std::move(how)),
        rank_(rank),
        size_(size),
        links_(std::move(with)),
        watch_(size),
        peers_(static_cast<std::size_t>(size)) {
    // A virtual clock does not wake anybody: sleepers look at it now and then.
    nap_ = std::chrono::duration<double>(std::clamp(how_.deadline / 20, 0.001, 0.1));
    if (links_.office)
      links_.office->start({[this](int source, letter_head const& head, std::vector<std::byte> bytes) {
                              receive(source, head, std::move(bytes));
                            },
                            [this](int source) { lose(source); }, [this] { tick(); }},
                           nap_.count());
  }
  group(group const&) = delete;
  group& operator=(group const&) = delete;
  ~group();

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return size_; }

  /// Puts a call into the queue; returns its number.
  i64 start(signature const& s, share memory, std::string_view bucket);
  /// Returns when call `sequence` has ended; makes it, and those before it, if nobody has begun.
  void finish(i64 sequence, operation what, std::string_view bucket);
  [[nodiscard]] bool done(i64 sequence);
  /// A request was destroyed before it was waited for. Returns when nobody uses its memory.
  void drop(i64 sequence, operation what, std::string_view bucket, bool unwinding);

  void revoke(std::string const& reason) {
    std::scoped_lock const lock(door_);
    fail({-1, reason});
  }
  /// This rank goes on in another group; those in `lost`, if they live, are told.
  void leave_behind(std::vector<int> const& lost, std::string const& reason) {
    std::scoped_lock const lock(door_);
    if (!failed_)
      for (int const r : lost) tell(r, {r, reason});
    fail({lost.empty() ? -1 : lost[0], reason}, false);
  }

  void send(const_tensor_view in, int peer);
  void recv(tensor_view out, int peer);
  void post(int peer, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] std::optional<message> poll(i64 tag);
  void listen();

  [[nodiscard]] std::vector<int> broken() const {
    std::scoped_lock const lock(door_);
    std::vector<int> out;
    for (int r = 0; r < size_; ++r)
      if (peers_[static_cast<std::size_t>(r)].broken) out.push_back(r);
    return out;
  }
  /// Why `peer` cannot come to a call any more; empty if it may.
  [[nodiscard]] std::string excuse(int peer) const {
    std::scoped_lock const lock(door_);
    auto const& p = peers_[static_cast<std::size_t>(peer)];
    if (p.broken) return text(connection_lost(peer), "; shrink without it as well");
    if (p.left) return text("rank ", peer, " left as well; shrink without it");
    return {};
  }

 private:
  enum class state : std::uint8_t { queued, running, ended, failed };

  struct call {
    signature what;
    share memory;
    std::string_view bucket;
    state now = state::queued;
  };
  struct peer_state {
    bool left = false;    ///< said goodbye
    bool broken = false;  ///< its connection ended without that
    i64 started = 0;      ///< calls it had begun when it left
  };

  [[nodiscard]] peer_state& peer(int r) noexcept { return peers_[static_cast<std::size_t>(r)]; }
  [[nodiscard]] call& at(i64 sequence) noexcept {
    return calls_[static_cast<std::size_t>(sequence - completed_ - 1)];
  }
  [[nodiscard]] bool may_take() const noexcept {
    return !failed_ && taken_ < started_ && running_ < how_.lanes;
  }
  [[nodiscard]] error thrown(std::string_view name, std::string_view bucket) const {
    return error({"gloo", std::string(name), 0, failed_->rank, std::string(bucket), failed_->reason});
  }
  void check_alive(std::string_view name, std::string_view bucket = {}) const {
    if (failed_) throw thrown(name, bucket);
  }
  [[nodiscard]] static std::string connection_lost(int r) {
    return text("the connection to rank ", r, " was lost: its process has ended or is out of reach");
  }
  [[nodiscard]] std::string call_text(i64 sequence) const {
    if (sequence > started_ || sequence <= started_ - static_cast<i64>(recent_.size())) return {};
    return text_of(recent_[static_cast<std::size_t>(sequence) % recent_.size()]);
  }
  [[nodiscard]] bool abandoned() const noexcept {
    int away = 0;
    for (auto const& p : peers_) away += p.left || p.broken ? 1 : 0;
    return away == size_ - 1;
  }

  /// Sleeps until something has happened; of calls, only that number `awaits` has ended.
  void sleep(std::unique_lock<std::mutex>& lock, i64 awaits = 0) {
    ++sleepers_;
    awaited_ = awaits;
    bell_.wait_for(lock, nap_);
    awaited_ = 0;
    --sleepers_;
  }
  void wake() {
    if (sleepers_ > 0) bell_.notify_all();
  }

  void work(std::unique_lock<std::mutex>& lock);
  void explain(std::unique_lock<std::mutex>& lock, call const& c, std::exception_ptr cause);
  void serve_first();
  void serve();
  void call_workers();
  void fail(verdict v, bool announce = true);
  void tell(int r, verdict const& v);

  void receive(int source, letter_head const& head, std::vector<std::byte> bytes);
  void lose(int source);
  void tick();

  options how_;
  int rank_, size_;
  links links_;
  std::chrono::duration<double> nap_{};

  mutable std::mutex door_;  // of all that follows; comes before the post office's and the mesh's own
  std::condition_variable bell_, alarm_, reserve_;  // for users, for the first worker, for the others
  int sleepers_ = 0;
  i64 awaited_ = 0;
  std::deque<call> calls_;  ///< those after `completed_`
  i64 started_ = 0, taken_ = 0, completed_ = 0;
  int running_ = 0;
  bool eager_ = false;    ///< the last call was made by a worker: the next one wakes it
  bool working_ = false;  ///< the first worker makes a call
  bool dozing_ = false;   ///< it sleeps until it is woken, and does not look at the queue
  bool stopped_ = false, closed_ = false;
  std::array<signature, 256> recent_{};
  std::optional<verdict> failed_;
  deadline_watch watch_;
  std::vector<peer_state> peers_;
  letter_shelf shelf_;
  std::vector<std::thread> workers_;
};

}  // namespace limber::gloo::detail

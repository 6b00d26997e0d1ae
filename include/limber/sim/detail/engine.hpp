// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The virtual clock and its events, the workers, how long they compute, and how they wait.

#include <limber/comm/detail/local_group.hpp>
#include <limber/core/error.hpp>
#include <limber/core/fingerprint.hpp>
#include <limber/core/random.hpp>
#include <limber/sim/cluster.hpp>
#include <limber/sim/detail/schedulers.hpp>
#include <limber/sim/report.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace limber::sim::detail {

/// Standard normal, keyed by (seed, stream, index).
[[nodiscard]] inline double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) noexcept {
  words4 const r = philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                           static_cast<std::uint32_t>(stream), 0x73696du},
                          seed);
  auto const unit = [](std::uint32_t high, std::uint32_t low) {  // in (0, 1)
    return (static_cast<double>((std::uint64_t{high} << 20) ^ (low >> 12)) + 0.5) * 0x1p-52;
  };
  return std::sqrt(-2 * std::log(unit(r.x, r.y))) * std::cos(2 * std::numbers::pi * unit(r.z, r.w));
}

/// The compute times of one worker.
///
///     work = (seconds_per_call + n · seconds_per_sample) · exp(σ z − σ²/2),   z ~ N(0, 1)
///     end  = the t where ∫ from start to t of 1 / factor(τ) dτ = work
///
/// State    the number of draws: z depends on seed, worker and draw alone.
class compute_time {
 public:
  compute_time(cluster const& c, int worker)
      : speed_(c.workers[static_cast<std::size_t>(worker)]), seed_(c.seed), worker_(worker) {
    std::ranges::copy_if(c.slowdowns, std::back_inserter(slowdowns_),
                         [worker](slowdown const& s) { return s.worker == worker; });
  }

  /// The end time of a computation of `samples` samples that begins at `start`.
  [[nodiscard]] double end(double start, double samples) noexcept {
    double work = speed_.seconds_per_call + samples * speed_.seconds_per_sample;
    if (speed_.jitter > 0)
      work *= std::exp(speed_.jitter * normal(seed_, static_cast<std::uint64_t>(worker_), draws_++) -
                       speed_.jitter * speed_.jitter / 2);
    for (double t = start;;) {
      double factor = 1, next = infinite;  // of the coming change of the factor
      for (slowdown const& s : slowdowns_) {
        if (s.from <= t && t < s.until) factor *= s.factor;
        for (double const edge : {s.from, s.until})
          if (edge > t) next = std::min(next, edge);
      }
      double const until_next = (next - t) / factor;
      if (work <= until_next) return t + work * factor;
      work -= until_next;
      t = next;
    }
  }

 private:
  speed speed_;
  std::uint64_t seed_;
  int worker_;
  std::uint64_t draws_ = 0;
  std::vector<slowdown> slowdowns_;
};

/// At equal times, events of links and deaths precede those of workers: a worker that polls at the arrival
/// time of a message finds it.
enum class phase : std::uint8_t { cluster, worker };

/// Ordered by (time, phase, worker, order of planning).
struct event {
  double time = 0;
  phase when = phase::cluster;
  int worker = 0;
  i64 sequence = 0;
  std::function<void()> act{};  ///< empty: gives the worker its turn

  friend bool operator>(event const& a, event const& b) noexcept {
    return std::tie(a.time, a.when, a.worker, a.sequence) > std::tie(b.time, b.when, b.worker, b.sequence);
  }
};

class group;
struct regroup_round;

/// Thrown to unwind the stack of a worker that died. Not a std::exception, so that programs do not handle it.
struct killed {};

using namespace limber::detail;

/// What a worker waits for, and in which group.
struct pending_wait : awaited_event {
  group* where = nullptr;
};

/// The engine's state of one worker.
struct worker_state {
  explicit worker_state(compute_time p) : computing(std::move(p)) {}

  double starts = 0;
  bool begun = false, ended = false;
  bool dead = false;         ///< to be unwound, or already unwound
  bool death_known = false;  ///< the other workers know of it
  double died_at = 0;

  bool parked = false;        ///< waits for a turn
  bool turn_planned = false;  ///< a turn is planned at the current time
  bool polling = false;       ///< polls without success: any event at it wakes it
  pending_wait waits_for{};
  int empty_polls = 0, repeated_polls = 0;  ///< since its last wait
  pending_wait last_poll{};
  std::optional<error> pending_error{};  ///< thrown in the worker when it wakes

  compute_time computing;
  double out_free[2] = {0, 0}, in_free[2] = {0, 0};  ///< when its links are free: network, inside
  worker_report counts{};
};

/// The state of one run. Accessed only by the worker that has the turn, or by the event loop.
class engine : public local_world {
 public:
  explicit engine(cluster const& c)
      : local_world{"sim", "left or died", " (worker ", ")", 8, infinite}, what_(c) {
    unwinding.resize(c.workers.size());
    for (int w = 0; w < c.size(); ++w) workers_.emplace_back(compute_time(c, w));
    for (join const& j : c.joins) at(j.worker).starts = j.at;
    bool const by_threads = c.how == scheduler::threads ||
                            (c.how == scheduler::automatic && (address_sanitizer || thread_sanitizer));
    expects(by_threads || !thread_sanitizer,
            "cluster: how: ThreadSanitizer cannot follow fibers; use scheduler::threads");
    if (by_threads)
      turns_ = std::make_unique<thread_scheduler>(c.size());
    else
      turns_ = std::make_unique<fiber_scheduler>(c.size(), c.stack_bytes);
  }

  [[nodiscard]] cluster const& what() const noexcept { return what_; }
  [[nodiscard]] double now() const noexcept { return now_; }
  [[nodiscard]] worker_state& at(int worker) noexcept { return workers_[static_cast<std::size_t>(worker)]; }
  [[nodiscard]] std::vector<worker_state>& workers() noexcept { return workers_; }

  /// The worker that has the turn; −1: the event loop, or the run has ended.
  [[nodiscard]] int turn() const noexcept { return turn_; }

  /// Plans a call of `act` at `time`, or a turn of the worker; `worker` orders events of equal time.
  void plan(double time, phase when, int worker, std::function<void()> act = {}) {
    events_.push_back({time, when, worker, planned_++, std::move(act)});
    std::ranges::push_heap(events_, std::greater{});
  }

  /// Takes the next event, and mixes it into the trace. @pre there is one
  [[nodiscard]] event next_event() {
    std::ranges::pop_heap(events_, std::greater{});
    event e = std::move(events_.back());
    events_.pop_back();
    ++taken_;
    trace_.mix(e.time);
    trace_.mix((e.sequence << 1) | static_cast<i64>(e.when));
    trace_.mix(i64{e.worker});
    return e;
  }

  /// Plans a turn for a waiting worker at the current time.
  void wake(int worker) {
    worker_state& s = at(worker);
    if (!s.parked || std::exchange(s.turn_planned, true)) return;
    plan(now_, phase::worker, worker);
  }

  /// Suspends the worker until it is woken; may return early. The time is added to `account`.
  /// @throws killed, or the pending_error
  void park(double worker_report::*account, pending_wait e) {
    worker_state& s = at(turn_);
    if (s.dead) throw killed{};
    local_group::fail_unwound(*this, turn_);
    double const since = now_;
    s.empty_polls = s.repeated_polls = 0;
    s.waits_for = e;
    s.parked = true;
    turns_->suspend();
    s.parked = false;
    s.polling = false;
    s.counts.*account += now_ - since;
    if (s.dead) throw killed{};
    if (s.pending_error) {
      error const e_out = *std::exchange(s.pending_error, std::nullopt);
      throw e_out;
    }
  }

  /// Lets virtual time pass until `time` for the worker that has the turn.
  void wait_until(double time, double worker_report::*account, std::string_view call) {
    if (!(time > now_)) return;
    plan(time, phase::worker, turn_);
    while (now_ < time) park(account, {{call}});
  }

  /// Called after a poll without success. A worker that keeps polling at one instant would stop the clock, so
  /// it waits until an event at it.
  void empty_poll(pending_wait e) {
    worker_state& s = at(turn_);
    bool const again =
        s.last_poll.where == e.where && s.last_poll.sequence == e.sequence && s.last_poll.call == e.call;
    s.last_poll = e;
    s.repeated_polls = again ? s.repeated_polls + 1 : 1;
    if (s.repeated_polls < max_empty_polls && ++s.empty_polls < max_empty_polls * max_empty_polls) return;
    s.polling = true;
    park(&worker_report::waiting, e);
  }

  /// Sends bytes from one worker to another. Both links are occupied for n/β, the receiver's once it is free
  /// and the first byte has reached it; the message arrives α later. It is lost, deliver(false), if the
  /// sender dies before the last byte has left. Returns the time at which the sender's link has taken all.
  double transfer(int from, int to, i64 bytes, std::function<void(bool arrived)> deliver) {
    if (from == to) {
      deliver(true);
      return now_;
    }
    link const& over = what_.between(from, to);
    int const which = &over == &what_.inside ? 1 : 0;
    double const n = static_cast<double>(bytes) * what_.byte_scale;
    double const hold = n / over.bandwidth;
    worker_state& sender = at(from);
    double const starts = std::max(now_, sender.out_free[which]), leaves = starts + hold;
    sender.out_free[which] = leaves;
    ++sender.counts.messages;
    sender.counts.bytes_sent += std::llround(n);
    auto enter = [this, from, to, which, hold, leaves, latency = over.latency, deliver = std::move(deliver)] {
      if (at(from).dead) return deliver(false);
      double& free = at(to).in_free[which];
      free = std::max(now_, free) + hold;
      plan(free + latency, phase::cluster, from,
           [this, from, leaves, deliver] { deliver(!(at(from).dead && at(from).died_at < leaves)); });
    };
    if (starts > now_)
      plan(starts, phase::cluster, from, std::move(enter));
    else
      enter();
    return leaves;
  }

  void note(int worker, std::string_view series, double value) {
    trace_.mix(series);
    trace_.mix(value);
    notes_.push_back({now_, worker, std::string(series), value});
  }

  std::shared_ptr<regroup_round> pending_regroup;  ///< the current regroup(), if any

 private:
  friend class driver;
  static constexpr int max_empty_polls = 64;

  cluster what_;
  double now_ = 0;
  int turn_ = -1;
  std::vector<event> events_;  ///< a heap, the next event first
  i64 planned_ = 0, taken_ = 0;
  fingerprint trace_;  ///< of the events taken and the notes
  std::vector<worker_state> workers_;
  std::vector<noted> notes_;
  std::unique_ptr<turn_scheduler> turns_;
};

}  // namespace limber::sim::detail

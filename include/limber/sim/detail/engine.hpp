// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The virtual clock, the workers that it moves, and how they wait.

#include <limber/core/error.hpp>
#include <limber/sim/cluster.hpp>
#include <limber/sim/detail/baton.hpp>
#include <limber/sim/detail/carrier.hpp>
#include <limber/sim/detail/events.hpp>
#include <limber/sim/detail/fibers.hpp>
#include <limber/sim/detail/pace.hpp>
#include <limber/sim/detail/sanitizers.hpp>
#include <limber/sim/report.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::sim::detail {

class group;
struct muster;

/// Unwinds the stack of a worker that died. No std::exception: nobody is meant to handle it.
struct killed {};

/// What a worker waits for. @pre the texts outlive the wait
struct errand {
  std::string_view call{};
  std::string_view bucket{};
  group* where = nullptr;
  i64 sequence = 0;  ///< of the operation, 0: none
  int peer = -1;     ///< whose letter
};

/// A place in a group that an exception has passed the requests or the handle of.
struct loose_end {
  std::shared_ptr<group> where;
  int rank;
};

/// One worker as the engine sees it.
struct seat {
  explicit seat(pace p) : computing(std::move(p)) {}

  double starts = 0;
  bool begun = false, ended = false;
  bool dead = false;     ///< and about to be unwound, or already gone
  bool noticed = false;  ///< the others know that it is dead
  double died_at = 0;

  bool parked = false;    ///< waits for a turn
  bool rung = false;      ///< a turn is planned, at once
  bool spinning = false;  ///< asks in vain: anything that happens to it wakes it
  errand waits_for{};
  int asked = 0, asked_the_same = 0;  ///< in vain
  errand last_question{};
  std::optional<error> verdict{};  ///< thrown to it when it wakes

  pace computing;
  double out_free[2] = {0, 0}, in_free[2] = {0, 0};  ///< when its links are free: network, inside
  std::vector<loose_end> loose_ends{};
  worker_report counts{};
};

void settle(seat& s);  // comes with the group

/// State of one run. All of it is touched only by who has the turn: a worker, or the loop between them.
class engine {
 public:
  explicit engine(cluster const& c) : what_(c) {
    for (int w = 0; w < c.size(); ++w) seats_.emplace_back(pace(c, w));
    for (join const& j : c.joins) at(j.worker).starts = j.at;
    bool const by_threads = c.how == scheduler::baton ||
                            (c.how == scheduler::automatic && (address_sanitizer || thread_sanitizer));
    expects(by_threads || !thread_sanitizer,
            "cluster: how: ThreadSanitizer cannot follow fibers; use scheduler::baton");
    if (by_threads)
      carrier_ = std::make_unique<baton>(c.size());
    else
      carrier_ = std::make_unique<fibers>(c.size(), c.stack_bytes);
  }

  [[nodiscard]] cluster const& what() const noexcept { return what_; }
  [[nodiscard]] double now() const noexcept { return now_; }
  [[nodiscard]] seat& at(int worker) noexcept { return seats_[static_cast<std::size_t>(worker)]; }
  [[nodiscard]] std::vector<seat>& seats() noexcept { return seats_; }

  /// Who has the turn; −1: the loop, or the run is over.
  [[nodiscard]] int turn() const noexcept { return turn_; }

  /// At `time`, the loop calls `act`; `worker` is for the order of what happens at the same time.
  void plan(double time, int worker, std::function<void()> act) {
    events_.plan(time, phase::cluster, worker, std::move(act));
  }

  /// A turn for a worker that waits, as soon as those before it have had theirs.
  void wake(int worker) {
    seat& s = at(worker);
    if (!s.parked || std::exchange(s.rung, true)) return;
    events_.plan(now_, phase::worker, worker);
  }

  /// Gives the turn away until woken, and maybe for less; the time counts as `account`.
  /// @throws killed, or the verdict on a worker that cannot go on
  void park(double worker_report::*account, errand e) {
    seat& s = at(turn_);
    if (s.dead) throw killed{};
    settle(s);
    double const since = now_;
    s.asked = s.asked_the_same = 0;
    s.waits_for = e;
    s.parked = true;
    carrier_->suspend();
    s.parked = false;
    s.spinning = false;
    s.counts.*account += now_ - since;
    if (s.dead) throw killed{};
    if (s.verdict) {
      error const e_out = *std::exchange(s.verdict, std::nullopt);
      throw e_out;
    }
  }

  /// The worker that has the turn is busy or idle until `time`.
  void pass(double time, double worker_report::*account, std::string_view call) {
    if (!(time > now_)) return;
    events_.plan(time, phase::worker, turn_);
    while (now_ < time) park(account, {call, {}, nullptr, 0, -1});
  }

  /// The worker has asked whether something is there, and it was not. Who goes on asking at one instant
  /// would stop the clock: it waits until something happens to it.
  void in_vain(errand e) {
    seat& s = at(turn_);
    bool const again = s.last_question.where == e.where && s.last_question.sequence == e.sequence &&
                       s.last_question.call == e.call;
    s.last_question = e;
    s.asked_the_same = again ? s.asked_the_same + 1 : 1;
    if (s.asked_the_same < patience && ++s.asked < patience * patience) return;
    s.spinning = true;
    park(&worker_report::waiting, e);
  }

  /// Bytes on their way from one worker to another. Both links are held for n/β, the receiver's as soon
  /// as it is free and the first byte is there; α later they have arrived. Those of a sender that dies
  /// before the last byte has left are lost: `deliver(false)`.
  /// Returns when the sender's link has taken all.
  double ship(int from, int to, i64 bytes, std::function<void(bool arrived)> deliver) {
    if (from == to) {
      deliver(true);
      return now_;
    }
    link const& over = what_.between(from, to);
    int const which = &over == &what_.inside ? 1 : 0;
    double const n = static_cast<double>(bytes) * what_.byte_scale;
    double const hold = n / over.bandwidth;
    seat& sender = at(from);
    double const starts = std::max(now_, sender.out_free[which]), leaves = starts + hold;
    sender.out_free[which] = leaves;
    ++sender.counts.messages;
    sender.counts.bytes_sent += std::llround(n);
    auto enter = [this, from, to, which, hold, leaves, latency = over.latency, deliver = std::move(deliver)] {
      if (at(from).dead) return deliver(false);
      double& free = at(to).in_free[which];
      free = std::max(now_, free) + hold;
      plan(free + latency, from,
           [this, from, leaves, deliver] { deliver(!(at(from).dead && at(from).died_at < leaves)); });
    };
    if (starts > now_)
      plan(starts, from, std::move(enter));
    else
      enter();
    return leaves;
  }

  void note(int worker, std::string_view series, double value) {
    events_.mix(series, value);
    notes_.push_back({now_, worker, std::string(series), value});
  }

  std::vector<std::weak_ptr<group>> groups;  ///< to be told of deaths and exceptions
  std::shared_ptr<muster> gathering;         ///< the regroup() that is under way

 private:
  friend class driver;
  static constexpr int patience = 64;

  cluster what_;
  double now_ = 0;
  int turn_ = -1;
  event_queue events_;
  std::vector<seat> seats_;
  std::vector<noted> notes_;
  std::unique_ptr<carrier> carrier_;
};

}  // namespace limber::sim::detail

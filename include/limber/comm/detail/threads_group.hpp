// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The state that the ranks of one `threads` communicator share.
///
/// Operations are numbered from 1 and live in a ring of records until they are complete. The rank
/// that arrives last at an operation starts its work; ranks that wait meanwhile take pieces of it.
/// Every element is computed once, in rank order, and stored to all outputs, so nobody wakes up
/// between arrival and completion. Once a group has failed or is frozen no new piece is taken, and
/// nobody whose memory is in use returns before `working_` is 0.

#include <limber/comm/detail/threads_hub.hpp>
#include <limber/comm/detail/threads_record.hpp>

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
using limber::detail::share;
using limber::detail::signature;

/// A group and who one is in it.
struct place {
  std::shared_ptr<group> where;
  int rank = 0;
};

class group : public std::enable_shared_from_this<group> {
 public:
  /// @pre the hub is locked or not yet shared
  [[nodiscard]] static std::shared_ptr<group> make(std::shared_ptr<hub> const& h,
                                                   std::vector<int> const& seats) {
    auto made = std::make_shared<group>(h, seats);
    std::erase_if(h->groups, [](auto const& g) { return g.expired(); });
    h->groups.push_back(made);
    return made;
  }

  group(std::shared_ptr<hub> h, std::vector<int> const& seats) : hub_(std::move(h)), members_(seats.size()) {
    for (std::size_t r = 0; r < seats.size(); ++r) members_[r].seat = seats[r];
  }

  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.size()); }

  /// Registers rank's part of its next operation; the last to arrive works on it until nothing is
  /// left to take. Returns the operation's number.
  i64 start(int rank, signature const& s, share mine, std::string_view bucket, int color = 0) {
    visit v(*hub_);
    check_in(v, rank, limber::detail::name_of(s.what), bucket);
    i64 const sequence = ++at(rank).started;
    record& r = ring_.fetch(sequence, completed_, members_.size());
    if (r.arrived == 0) {
      r.what = s;
      r.first = rank;
    } else if (r.what != s) {
      // With two against one, the one is at fault.
      int const other = r.first;
      fail(v, r.arrived == 1 ? std::max(rank, other) : rank,
           text(who(std::min(rank, other)), " called ", text_of(rank < other ? s : r.what), " where ",
                who(std::max(rank, other)), " called ", text_of(rank < other ? r.what : s)));
      throw thrown(limber::detail::name_of(s.what), bucket);
    }
    auto const i = static_cast<std::size_t>(rank);
    r.shares[i] = mine;
    r.colors[i] = color;
    r.here[i] = 1;
    if (++r.arrived == size()) {
      ready_ = sequence;
      distribute(v, r);
      while (record* const next = unclaimed()) work(v, *next);
    }
    return sequence;
  }

  /// Waits for operation `sequence`, and works on it or an earlier one where there is work.
  void finish(int rank, i64 sequence, operation what, std::string_view bucket) {
    patience p{hub_->now()};
    visit v(*hub_);
    bool late = false;
    while (completed_ < sequence) {
      if (record* const next = unclaimed()) {
        work(v, *next);
        continue;
      }
      if (failed_ && working_ == 0) throw thrown(limber::detail::name_of(what), bucket);
      if (!failed_) judge(v, sequence, late);
      if (failed_ && working_ == 0) continue;
      late = idle(v, rank, failed_ || frozen_ ? anything : sequence, p);
    }
  }

  /// True when finish would return or throw at once.
  bool done(i64 sequence, patience& p) {
    double const now = hub_->now();
    visit v(*hub_);
    if (completed_ < sequence && !failed_) {
      if (!p.running || p.seen != completed_) p = {now, true, completed_};
      judge(v, sequence, now - p.since > hub_->how.deadline);
    }
    return completed_ >= sequence || (failed_ && working_ == 0);
  }

  /// A request was destroyed before it was waited for. Returns when nobody uses its memory.
  void drop(int rank, operation what, std::string_view bucket, bool unwinding) {
    visit v(*hub_);
    if (unwinding && seat_of(rank).supervised)
      freeze(v, rank);
    else
      fail(v, rank,
           text(who(rank), unwinding ? " was left by an exception with its " : " destroyed its ",
                limber::detail::name_of(what), bucket.empty() ? "" : " of '", bucket,
                bucket.empty() ? "" : "'", unwinding ? " in flight" : " before it was waited for"));
    patience p{hub_->now()};
    while (working_ > 0) idle(v, rank, anything, p);
  }

  /// The handle of `rank` was destroyed.
  void leave(int rank, bool unwinding) {
    visit v(*hub_);
    at(rank).gone = true;
    ++gone_;
    wake_all(v);
    if (unwinding && seat_of(rank).supervised)
      freeze(v, rank);
    else if (unwinding)
      fail(v, rank, text(who(rank), " was left by an exception"));
  }

  void revoke(std::string const& reason) {
    visit v(*hub_);
    fail(v, -1, reason);
  }

  /// A world rank is lost, for a reason: fails every group that it had not left before.
  static void abandon(hub& h, int world_rank, std::string const& reason) {
    visit v(h);
    abandon(v, h, world_rank, reason, false);
  }

  /// A supervised rank went on although an exception had passed open requests.
  static void settle(hub& h, int world_rank) {
    visit v(h);
    settle(v, h, world_rank);
  }

  /// Where `rank` belongs after the split that it has just finished.
  [[nodiscard]] place take_place(int rank) {
    visit v(*hub_);
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
  static constexpr i64 anything = std::numeric_limits<i64>::max();

  struct letter {
    dtype type;
    i64 length;
    std::vector<std::byte> bytes;
  };

  struct member {
    int seat = 0;
    bool gone = false;
    i64 started = 0;
    i64 awaits = 0;  ///< the operation it sleeps for, `anything`, or 0 when it does not sleep
    place next{};
    std::map<int, std::deque<letter>> letters{};
    std::map<i64, std::deque<message>> mail{};
    i64 mailed = 0;  ///< messages that ever arrived
    i64 heard = 0;   ///< of those, when `listen` last returned
  };

  struct verdict {
    int rank;
    std::string reason;
  };

  struct shrinking {
    std::vector<int> lost;
    std::vector<char> here;
    std::shared_ptr<group> next{};
    std::optional<verdict> failed{};
  };

  [[nodiscard]] member& at(int rank) noexcept { return members_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] seat& seat_of(int rank) noexcept {
    return hub_->seats[static_cast<std::size_t>(at(rank).seat)];
  }
  [[nodiscard]] std::string who(int rank) {
    int const s = at(rank).seat;
    return s == rank ? text("rank ", rank) : text("rank ", rank, " (rank ", s, " of the world)");
  }
  [[nodiscard]] std::string who(std::vector<int> const& ranks) {
    std::string out;
    for (int const r : ranks) out += text(out.empty() ? "" : ", ", who(r));
    return out;
  }
  [[nodiscard]] std::string unexplained() {
    return text(who(culprit_), " was left by an exception with operations in flight");
  }
  [[nodiscard]] error thrown(std::string_view call, std::string_view bucket) const {
    return error({"threads", std::string(call), 0, failed_->rank, std::string(bucket), failed_->reason});
  }

  /// All have arrived: prepares the work and wakes others to share it.
  void distribute(visit& v, record& r) {
    r.cut();
    if (r.what.what == operation::split) divide(r);
    if (r.pieces == 0) return complete(v);
    i64 helpers = std::min<i64>(r.pieces - 1, hub_->helpers);
    for (auto& m : members_) {
      if (helpers == 0) break;
      if (m.awaits == 0 || m.awaits == anything) continue;
      v.wake(hub_->seats[static_cast<std::size_t>(m.seat)]);
      --helpers;
    }
  }

  void divide(record const& r) {
    std::map<int, std::vector<int>> ranks;
    for (int k = 0; k < size(); ++k) ranks[r.colors[static_cast<std::size_t>(k)]].push_back(k);
    for (auto const& [color, list] : ranks) {
      std::vector<int> seats;
      for (int const k : list) seats.push_back(at(k).seat);
      auto const made = make(hub_, seats);
      for (std::size_t k = 0; k < list.size(); ++k) at(list[k]).next = {made, static_cast<int>(k)};
    }
  }

  /// The oldest operation with a piece that nobody has taken.
  [[nodiscard]] record* unclaimed() noexcept {
    if (failed_ || frozen_) return nullptr;
    for (i64 s = completed_ + 1; s <= ready_; ++s)
      if (ring_[s].claimed < ring_[s].pieces) return &ring_[s];
    return nullptr;
  }

  void work(visit& v, record& r) {
    i64 const piece = r.claimed++;
    ++working_;
    v.leave();
    r.perform(piece);
    v.enter();
    --working_;
    if (++r.finished == r.pieces) complete(v);
    if ((failed_ || frozen_) && working_ == 0) wake_all(v);
  }

  void complete(visit& v) {
    while (completed_ < ready_ && ring_[completed_ + 1].finished == ring_[completed_ + 1].pieces)
      ++completed_;
    for (auto& m : members_)
      if (m.awaits != 0 && m.awaits <= completed_) v.wake(hub_->seats[static_cast<std::size_t>(m.seat)]);
  }

  void wake_all(visit& v) {
    for (auto& m : members_)
      if (m.awaits != 0) v.wake(hub_->seats[static_cast<std::size_t>(m.seat)]);
  }

  void fail(visit& v, int rank, std::string reason) {
    if (failed_) return;
    failed_ = verdict{rank, std::move(reason)};
    wake_all(v);
  }

  /// Stops all work until threads::run has the reason why `rank` is being left.
  void freeze(visit& v, int rank) {
    if (failed_ || frozen_) return;
    frozen_ = true;
    culprit_ = rank;
    seat_of(rank).unwinding = true;
    wake_all(v);
  }

  static void abandon(visit& v, hub& h, int world_rank, std::string const& reason, bool only_frozen) {
    h.seats[static_cast<std::size_t>(world_rank)].unwinding = false;
    for (auto const& weak : h.groups) {
      auto const g = weak.lock();
      if (!g) continue;
      for (int r = 0; r < g->size(); ++r) {
        if (g->at(r).seat != world_rank) continue;
        bool const by_it = g->frozen_ && g->culprit_ == r;
        if (by_it || (!only_frozen && !g->at(r).gone)) g->fail(v, r, text(g->who(r), " ", reason));
      }
    }
  }
  static void settle(visit& v, hub& h, int world_rank) {
    if (h.seats[static_cast<std::size_t>(world_rank)].unwinding)
      abandon(v, h, world_rank, "was left by an exception with operations in flight, and went on", true);
  }

  void check_in(visit& v, int rank, std::string_view call, std::string_view bucket) {
    settle(v, *hub_, at(rank).seat);
    if (failed_) throw thrown(call, bucket);
  }

  /// Fails the group if operation `sequence` or an earlier one cannot complete any more.
  void judge(visit& v, i64 sequence, bool late) {
    if (frozen_) {
      if (late) fail(v, culprit_, unexplained());
      return;
    }
    for (i64 s = completed_ + 1; s <= sequence && (late || gone_ > 0); ++s) {
      record& r = ring_[s];
      if (r.arrived == size()) continue;
      std::vector<int> missing, gone;
      for (int k = 0; k < size(); ++k)
        if (r.here[static_cast<std::size_t>(k)] == 0) (at(k).gone ? gone : missing).push_back(k);
      std::string const call = text_of(r.what);
      if (!gone.empty()) return fail(v, gone[0], text(who(gone), " left without calling ", call));
      if (late)
        return fail(v, missing[0],
                    text(who(missing), " did not call ", call, " within ", hub_->how.deadline, " s"));
    }
  }

  /// Sleeps until something happens. True if the deadline has passed since `p` began.
  bool idle(visit& v, int rank, i64 awaits, patience& p) {
    if (!p.running) {
      p.running = true;
      p.seen = completed_;
    }
    at(rank).awaits = awaits;
    bool const over = v.sleep(seat_of(rank), hub_->nap);
    at(rank).awaits = 0;
    if (!over) return false;
    v.leave();
    double const now = hub_->now();
    v.enter();
    if (p.seen != completed_) p = {now, true, completed_};
    return now - p.since > hub_->how.deadline;
  }

  std::shared_ptr<hub> hub_;
  std::vector<member> members_;
  operation_ring ring_;
  i64 ready_ = 0;      ///< operations that all ranks have arrived at
  i64 completed_ = 0;  ///< operations whose results are there
  int working_ = 0;    ///< ranks that read and write tensors at the moment
  int gone_ = 0;
  bool frozen_ = false;
  int culprit_ = -1;
  std::optional<verdict> failed_;
  std::list<std::shared_ptr<shrinking>> shrinkings_;
};

}  // namespace limber::threads::detail

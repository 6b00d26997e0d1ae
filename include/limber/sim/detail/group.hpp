// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The state that the ranks of one communicator of the virtual cluster share: its operations.
///
/// The rank that arrives last computes the whole result, in rank order, and stores it to all; it counts
/// from the end of the operation on, in virtual time. Nobody's memory is touched after that arrival.

#include <limber/sim/detail/engine.hpp>
#include <limber/sim/detail/record.hpp>

#include <algorithm>
#include <cmath>
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

namespace limber::sim::detail {

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
  [[nodiscard]] static std::shared_ptr<group> make(std::shared_ptr<engine> const& e,
                                                   std::vector<int> const& seats) {
    auto made = std::make_shared<group>(e, seats);
    std::erase_if(e->groups, [](auto const& g) { return g.expired(); });
    e->groups.push_back(made);
    return made;
  }

  group(std::shared_ptr<engine> e, std::vector<int> const& seats)
      : engine_(std::move(e)), members_(seats.size()) {
    for (std::size_t r = 0; r < seats.size(); ++r) members_[r].seat = seats[r];
    cluster const& c = engine_->what();
    bool const together =
        std::ranges::all_of(seats, [&](int s) { return &c.between(seats.front(), s) == &c.inside; });
    over_ = together ? c.inside : c.network;
    for (int const s : seats) {
      if (engine_->at(s).dead) cut_ = engine_->now();
      if (engine_->at(s).noticed) ++noticed_;
    }
  }

  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.size()); }
  [[nodiscard]] double barrier_seconds() const noexcept { return broadcast_seconds(over_, 0, size()); }

  /// Registers rank's part of its next operation. Returns the operation's number.
  i64 start(int rank, signature const& s, share mine, std::string_view bucket, int color = 0) {
    check_in(rank, limber::detail::name_of(s.what), bucket);
    i64 const sequence = ++at(rank).started;
    records_.advance(horizon());
    record& r = records_.fetch(sequence, members_.size());
    if (r.arrived == 0) {
      r.what = s;
      r.first = rank;
    } else if (r.what != s) {
      // With two against one, the one is at fault.
      int const other = r.first;
      fail(r.arrived == 1 ? std::max(rank, other) : rank,
           text(who(std::min(rank, other)), " called ", text_of(rank < other ? s : r.what), " where ",
                who(std::max(rank, other)), " called ", text_of(rank < other ? r.what : s)));
      throw thrown(limber::detail::name_of(s.what), bucket);
    }
    auto const i = static_cast<std::size_t>(rank);
    r.shares[i] = mine;
    r.colors[i] = color;
    r.here[i] = 1;
    if (++r.arrived == size() && cut_ == infinite) perform(r, sequence);
    return sequence;
  }

  /// Waits for operation `sequence`.
  void finish(int rank, i64 sequence, operation what, std::string_view bucket) {
    while (!over(rank, sequence))
      engine_->park(&worker_report::waiting, {limber::detail::name_of(what), bucket, this, sequence, -1});
    if (records_.completed() < sequence) throw thrown(limber::detail::name_of(what), bucket);
  }

  /// True when finish would return or throw at once.
  bool done(int rank, i64 sequence, operation what, std::string_view bucket) {
    if (over(rank, sequence)) return true;
    engine_->in_vain({limber::detail::name_of(what), bucket, this, sequence, -1});
    return over(rank, sequence);
  }

  /// A request was destroyed before it was waited for.
  void drop(int rank, operation what, std::string_view bucket, bool unwinding) {
    if (seat_of(rank).dead) return;
    if (unwinding)
      seat_of(rank).loose_ends.push_back({shared_from_this(), rank});
    else
      fail(rank,
           text(who(rank), " destroyed its ", limber::detail::name_of(what), bucket.empty() ? "" : " of '",
                bucket, bucket.empty() ? "" : "'", " before it was waited for"));
  }

  /// The handle of `rank` was destroyed.
  void leave(int rank, bool unwinding) {
    if (seat_of(rank).dead || seat_of(rank).ended) return;
    at(rank).gone = true;
    ++gone_;
    wake_all();
    if (unwinding) seat_of(rank).loose_ends.push_back({shared_from_this(), rank});
  }

  void fail(int rank, std::string reason) {
    if (failed_) return;
    failed_ = verdict{rank, std::move(reason)};
    cut_ = std::min(cut_, engine_->now());
    wake_all();
  }

  /// A worker threw: the group fails unless it had left before.
  void abandon(int worker, std::string const& reason) {
    for (int r = 0; r < size(); ++r)
      if (at(r).seat == worker && !at(r).gone) fail(r, text(who(r), " ", reason));
  }
  void tie_up(int rank, std::string const& reason) { fail(rank, text(who(rank), " ", reason)); }

  /// A worker has died: what is in flight never completes. The others do not know it yet.
  void lose(int worker) {
    if (holds(worker)) cut_ = std::min(cut_, engine_->now());
  }
  /// Now they know.
  void notice(int worker) {
    if (!holds(worker)) return;
    ++noticed_;
    wake_all();
  }

  /// Where `rank` belongs after the split that it has just finished.
  [[nodiscard]] place take_place(int rank) { return std::exchange(at(rank).next, {}); }

  /// A new group of those not in `lost`; the old one has failed afterwards.
  [[nodiscard]] place shrink(int rank, std::vector<int> const& lost);

  void send(int rank, int peer, const_tensor_view in);
  void recv(int rank, int peer, tensor_view out);
  void post(int rank, int peer, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] std::optional<message> poll(int rank, i64 tag);
  void listen(int rank);

  /// For the report of a deadlock: what `worker` waits for here, and which rank is at fault, or −1.
  [[nodiscard]] std::pair<std::string, int> plight(errand const& e);

 private:
  struct letter {
    dtype type;
    i64 length;
    std::vector<std::byte> bytes;
  };
  struct mail {
    i64 number;  ///< of all that this rank got, from 1
    message what;
  };

  struct member {
    int seat = 0;
    bool gone = false;
    i64 started = 0;
    place next{};
    std::map<int, std::deque<letter>> letters{};
    std::map<int, i64> coming{};  ///< letters on their way
    std::map<i64, std::deque<mail>> boxes{};
    i64 underway = 0;            ///< mail on its way
    i64 arrived = 0, heard = 0;  ///< mail; up to the last listen
    i64 fresh = 0;               ///< unread mail that no listen has returned for
  };

  struct verdict {
    int rank;
    std::string reason;
  };

  struct shrinking {
    std::vector<int> lost;
    std::vector<char> here;
    std::shared_ptr<group> next{};
    double end = 0;
    std::optional<verdict> failed{};
  };

  [[nodiscard]] member& at(int rank) noexcept { return members_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] seat& seat_of(int rank) noexcept { return engine_->at(at(rank).seat); }
  [[nodiscard]] bool holds(int worker) const noexcept {
    return std::ranges::any_of(members_, [&](member const& m) { return m.seat == worker && !m.gone; });
  }
  [[nodiscard]] std::string who(int rank) {
    int const s = at(rank).seat;
    return s == rank ? text("rank ", rank) : text("rank ", rank, " (worker ", s, ")");
  }
  [[nodiscard]] std::string who(std::vector<int> const& ranks) {
    std::string out;
    for (std::size_t k = 0; k < ranks.size() && k < 8; ++k) out += text(k == 0 ? "" : ", ", who(ranks[k]));
    return ranks.size() > 8 ? text(out, " and ", ranks.size() - 8, " more") : out;
  }
  [[nodiscard]] error thrown(std::string_view call, std::string_view bucket) const {
    return error({"sim", std::string(call), 0, failed_->rank, std::string(bucket), failed_->reason});
  }
  [[nodiscard]] std::string obituary(int rank) {
    return text(who(rank), " died at ", seat_of(rank).died_at, " s");
  }

  void wake_all() {
    for (auto const& m : members_) {
      seat const& s = engine_->at(m.seat);
      if (s.spinning || s.waits_for.where == this) engine_->wake(m.seat);
    }
  }
  void wake(int rank) {
    seat const& s = seat_of(rank);
    if (s.spinning || s.waits_for.where == this) engine_->wake(at(rank).seat);
  }

  /// Until when operations have completed.
  [[nodiscard]] double horizon() const noexcept { return std::min(engine_->now(), cut_); }

  void check_turn(int rank, std::string_view call) {
    if (int const user = engine_->turn(); user != at(rank).seat)
      expects(false, "sim: ", call, ": the communicator of worker ", at(rank).seat, " was used ",
              user < 0 ? "outside of sim::run" : text("by worker ", user));
  }
  void check_in(int rank, std::string_view call, std::string_view bucket) {
    check_turn(rank, call);
    if (seat_of(rank).dead) throw killed{};
    settle(seat_of(rank));
    if (failed_) throw thrown(call, bucket);
  }

  /// All have arrived.
  void perform(record& r, i64 sequence) {
    limber::detail::perform(r.what, r.shares, 0, limber::detail::extent(r.what, size()));
    if (r.what.what == operation::split) divide(r);
    price const p = price_of(r.what, engine_->what().reduce, over_, size(), engine_->what().byte_scale);
    r.performed = true;
    r.end = free_ = std::max(engine_->now(), free_) + p.seconds;
    i64 const bytes = std::llround(p.bytes);
    for (auto const& m : members_) {
      engine_->at(m.seat).counts.bytes_sent += bytes;
      ++engine_->at(m.seat).counts.operations;
    }
    if (size() > 1)
      engine_->plan(r.end, at(0).seat, [self = shared_from_this(), sequence] { self->ended(sequence); });
  }

  /// Wakes those who wait for `sequence` or an earlier operation.
  void ended(i64 sequence) {
    if (cut_ < engine_->now()) return;
    for (auto const& m : members_) {
      seat const& s = engine_->at(m.seat);
      bool const waits =
          s.waits_for.where == this && s.waits_for.sequence > 0 && s.waits_for.sequence <= sequence;
      if (waits || s.spinning) engine_->wake(m.seat);
    }
  }

  void divide(record const& r) {
    std::map<int, std::vector<int>> ranks;
    for (int k = 0; k < size(); ++k) ranks[r.colors[static_cast<std::size_t>(k)]].push_back(k);
    for (auto const& [color, list] : ranks) {
      std::vector<int> seats;
      for (int const k : list) seats.push_back(at(k).seat);
      auto const made = make(engine_, seats);
      for (std::size_t k = 0; k < list.size(); ++k) at(list[k]).next = {made, static_cast<int>(k)};
    }
  }

  /// Operation `sequence` has completed, or the group failed.
  bool over(int rank, i64 sequence) {
    check_turn(rank, "wait");
    records_.advance(horizon());
    if (records_.completed() >= sequence) return true;
    if (!failed_ && (gone_ > 0 || noticed_ > 0)) judge(sequence);
    return failed_.has_value();
  }

  /// Fails the group if operation `sequence` or an earlier one cannot complete any more.
  void judge(i64 sequence) {
    for (i64 s = records_.completed() + 1; s <= sequence; ++s) {
      record& r = *records_.find(s);
      for (int k = 0; k < size(); ++k)
        if (seat_of(k).noticed && !at(k).gone)
          return fail(k, text(obituary(k),
                              r.here[static_cast<std::size_t>(k)] != 0 ? " during " : " without calling ",
                              text_of(r.what)));
      std::vector<int> gone;
      for (int k = 0; k < size(); ++k)
        if (r.here[static_cast<std::size_t>(k)] == 0 && at(k).gone) gone.push_back(k);
      if (!gone.empty()) return fail(gone[0], text(who(gone), " left without calling ", text_of(r.what)));
    }
  }

  std::shared_ptr<engine> engine_;
  std::vector<member> members_;
  record_list records_;
  link over_{};
  double free_ = 0;        ///< when the last operation that all arrived at ends
  double cut_ = infinite;  ///< what has not ended by then never will: somebody died, or the group failed
  int gone_ = 0, noticed_ = 0;
  std::optional<verdict> failed_;
  std::list<std::shared_ptr<shrinking>> shrinkings_;
};

/// A worker went on although an exception had passed open requests: others must not wait for it, nor
/// may its memory be used.
inline void settle(seat& s) {
  for (auto const& end : std::exchange(s.loose_ends, {}))
    end.where->tie_up(end.rank, "was left by an exception with operations in flight, and went on");
}

}  // namespace limber::sim::detail

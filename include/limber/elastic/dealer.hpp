// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Deals samples to workers that may die: each is consumed exactly once an epoch.

#include <limber/batch/apportion.hpp>
#include <limber/batch/logical_shards.hpp>
#include <limber/batch/plan.hpp>
#include <limber/batch/sampler.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>
#include <limber/elastic/stretch.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace limber::elastic {

/// What a rank is to work on in one call of step().
struct hand {
  i64 epoch = 0;
  std::span<i64 const> samples{};  ///< valid until the next hand
};

/// A sampler that knows what became of the samples it dealt.
///
///     deal → compute, step → stands | drops;   settles once all that stands is in everybody's parameters
///
/// A call *stands* when its update was made. Until models are merged, a worker's part of it is in its own
/// parameters alone: if it dies, that part is dealt again, to all. What is owed comes first; then the epoch
/// goes on where it was. Without deaths the hands are those of `sampler`.
///
/// State        the position, what is owed, and the calls since the last settlement: alike on all ranks that
///              were there. Nothing is communicated, but by `share`.
/// Choices      a call deals from one stretch, so one that deals what is owed may be short; its shares are
///              then proportional to the planned ones. Samples of an update that was skipped are consumed.
class dealer {
 public:
  /// @throws std::invalid_argument if size is not in [1, 2⁶²]
  explicit dealer(i64 size, std::uint64_t seed = 0) : engine_(size, seed), position_(engine_.state()) {}

  /// The samples of `rank` in the coming call, number `call`. @throws std::invalid_argument as sampler::deal
  [[nodiscard]] hand deal(batch_plan const& plan, int rank, i64 call) {
    expects(rank >= 0 && rank < std::ssize(plan.share), "dealer: rank must lie in [0, ", plan.share.size(),
            "), got ", rank);
    coming_ = {};
    coming_.call = call;
    if (plan.shards > 0) return deal_shard(plan, rank);
    i64 total = 0;
    for (i64 const b : plan.share) total += b;
    stretch const from = owed_.empty() ? stretch{position_.epoch, position_.cursor, rest()} : owed_.front();
    coming_.share = plan.share;
    if (total > from.count) detail::apportion_into(from.count, std::span(plan.share), coming_.share, order_);
    coming_.of = {from.epoch, from.first, std::min(total, from.count)};
    go_to(from);
    return {from.epoch, engine_.deal(coming_.share, rank)};
  }

  /// The call that was dealt last stands: its samples are consumed.
  void stands() {
    if (coming_.call == 0) return;
    entry const e = std::exchange(coming_, {});
    if (e.last_shard) {
      advance(e.of.count);
      shard_call_ = 0;
    } else if (e.share.empty()) {
      ++shard_call_;
    } else {
      if (owed_.empty())
        advance(e.of.count);
      else
        take_off(owed_, e.of.count);
      open_.push_back(e);
    }
  }
  /// The call that was dealt last came to nothing, unless `calls` shows that it was counted all the same.
  void drops(i64 calls) {
    if (coming_.call != 0 && coming_.call <= calls) return stands();
    coming_ = {};
    shard_call_ = 0;
  }

  /// Everything that stands is in the parameters of all.
  void settles() noexcept { open_.clear(); }

  /// After a recovery: the last `voided` calls before `calls` came to nothing, and of the others since the
  /// last settlement only the parts of `keeps` stand: per rank of that time, whether it kept its model.
  void recovers(i64 calls, i64 voided, std::span<char const> keeps) {
    drops(calls);
    for (; !open_.empty() && open_.back().call > calls - voided; open_.pop_back()) give_back(open_.back().of);
    for (entry const& e : open_) {
      i64 first = e.of.first;
      for (std::size_t r = 0; r < e.share.size(); ++r) {
        if (r >= keeps.size() || keeps[r] == 0) put_in(owed_, {e.of.epoch, first, e.share[r]});
        first += e.share[r];
      }
    }
    open_.clear();
    shard_call_ = 0;
  }

  /// Makes all ranks' dealers that of rank `giver`, also of those who were there: what the giver was told
  /// last counts. A rank that it fails on keeps its own. A collective call.
  template <class C>
  void share(C& comm, int giver) {
    std::array<i64, 5> facts{position_.size, static_cast<i64>(position_.seed), position_.epoch,
                             position_.cursor, static_cast<i64>(owed_.size())};
    comm.broadcast(view(facts, "dealer"), giver).wait();
    expects(facts[0] == position_.size, "dealer: the data set has ", position_.size, " samples here but ",
            facts[0], " on rank ", giver);
    std::vector<i64> owed;
    for (stretch const& s : owed_) owed.insert(owed.end(), {s.epoch, s.first, s.count});
    owed.resize(static_cast<std::size_t>(3 * facts[4]));
    if (!owed.empty()) comm.broadcast(view(owed, "dealer: owed"), giver).wait();
    if (comm.rank() != giver) restore(std::span<i64 const>(facts).first(4), owed);
  }

  /// Epochs of which every sample is consumed, where all that stands settles.
  [[nodiscard]] i64 epoch() const noexcept {
    return owed_.empty() ? position_.epoch : std::min(owed_.front().epoch, position_.epoch);
  }
  [[nodiscard]] i64 size() const noexcept { return position_.size; }
  /// What is dealt next, ahead of the rest of the epoch.
  [[nodiscard]] std::vector<stretch> const& owed() const noexcept { return owed_; }
  [[nodiscard]] sampler_state const& position() const noexcept { return position_; }

  /// All of it as numbers, for a checkpoint; between calls, once settled.
  [[nodiscard]] std::vector<i64> state() const {
    expects(open_.empty() && coming_.call == 0 && shard_call_ == 0,
            "dealer: state can be taken when all that was dealt has settled; call finish() first");
    std::vector<i64> out{position_.size, static_cast<i64>(position_.seed), position_.epoch, position_.cursor};
    for (stretch const& s : owed_) out.insert(out.end(), {s.epoch, s.first, s.count});
    return out;
  }
  /// @throws std::invalid_argument if these are no numbers from `state`, or of a data set of another size
  void restore(std::span<i64 const> state) {
    expects(state.size() >= 4 && state.size() % 3 == 1, "dealer: a state of ", state.size(), " numbers");
    restore(state.first(4), state.subspan(4));
  }

 private:
  struct entry {
    i64 call = 0;  // 0: none
    stretch of{};
    std::vector<i64> share{};  // per rank; empty with logical shards
    bool last_shard = false;   // this call ends an update
  };

  [[nodiscard]] i64 rest() const noexcept { return position_.size - position_.cursor; }

  void go_to(stretch const& s) { engine_.restore({position_.size, position_.seed, s.epoch, s.first}); }

  // Shards cross all workers: an update stands as a whole, or none of its samples is consumed.
  [[nodiscard]] hand deal_shard(batch_plan const& plan, int rank) {
    expects(owed_.empty(),
            "dealer: samples are owed, which logical shards never leave; was the policy changed?");
    i64 const shard = shard_of(plan, static_cast<int>(plan.share.size()), rank, shard_call_);
    coming_.last_shard = shard_call_ + 1 == plan.calls_per_update;
    coming_.of = {position_.epoch, position_.cursor, std::min(plan.total, rest())};
    go_to(coming_.of);
    return {position_.epoch, engine_.deal_shard(plan, shard)};
  }

  void advance(i64 count) {
    position_.cursor += count;
    if (position_.cursor < position_.size) return;
    position_.cursor = 0;
    ++position_.epoch;
  }

  // What came last goes back first, so that the epoch goes on as though it had never been dealt.
  void give_back(stretch const& s) {
    bool const just_dealt = s.epoch == position_.epoch && s.first + s.count == position_.cursor;
    bool const ended_epoch =
        s.epoch + 1 == position_.epoch && position_.cursor == 0 && s.first + s.count == position_.size;
    if (just_dealt || ended_epoch) {
      position_.epoch = s.epoch;
      position_.cursor = s.first;
    } else {
      put_in(owed_, s);
    }
  }

  void restore(std::span<i64 const> position, std::span<i64 const> owed) {
    sampler_state const at{position[0], static_cast<std::uint64_t>(position[1]), position[2], position[3]};
    engine_.restore(at);
    std::vector<stretch> all;
    for (std::size_t k = 0; k + 2 < owed.size(); k += 3) {
      stretch const s{owed[k], owed[k + 1], owed[k + 2]};
      i64 const dealt = s.epoch == at.epoch ? at.cursor : at.size;
      expects(
          s.epoch >= 0 && s.epoch <= at.epoch && s.first >= 0 && s.count > 0 && s.first <= dealt - s.count,
          "dealer: no samples ", s.first, " + ", s.count, " of epoch ", s.epoch, " can be owed at sample ",
          at.cursor, " of epoch ", at.epoch, " of ", at.size);
      expects(all.empty() || all.back().epoch < s.epoch ||
                  (all.back().epoch == s.epoch && all.back().first + all.back().count <= s.first),
              "dealer: samples ", s.first, " + ", s.count, " of epoch ", s.epoch,
              " are owed out of order, or twice");
      put_in(all, s);
    }
    position_ = at;
    owed_ = std::move(all);
    open_.clear();
    coming_ = {};
    shard_call_ = 0;
  }

  sampler engine_;
  sampler_state position_;     // of what was never dealt
  std::vector<stretch> owed_;  // ordered, disjoint
  std::vector<entry> open_;    // stand, but are not settled
  entry coming_;
  i64 shard_call_ = 0;  // calls of the open update that stand
  std::vector<i64> order_;
};

}  // namespace limber::elastic

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Distributes samples to workers that may fail, so that each sample is consumed exactly once per epoch.

#include <limber/batch/apportion.hpp>
#include <limber/batch/logical_shards.hpp>
#include <limber/batch/plan.hpp>
#include <limber/batch/sampler.hpp>
#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace limber::elastic {

/// Positions [first, first + count) of the permutation of `epoch`.
struct sample_range {
  i64 epoch = 0, first = 0, count = 0;

  friend auto operator<=>(sample_range const&, sample_range const&) = default;
};

/// Inserts `s` into an ordered list of disjoint ranges, and merges adjacent ranges.
/// @pre s overlaps no range of the list
inline void insert_range(std::vector<sample_range>& list, sample_range s) {
  if (s.count == 0) return;
  list.insert(std::ranges::upper_bound(list, s), s);
  for (auto at = list.begin() + 1; at != list.end();) {
    sample_range& before = *(at - 1);
    if (at->epoch != before.epoch || at->first != before.first + before.count) {
      ++at;
    } else {
      before.count += at->count;
      at = list.erase(at);
    }
  }
}

/// Removes the first `count` positions of the first range. @pre it has at least `count`
inline void remove_front(std::vector<sample_range>& list, i64 count) {
  list.front().first += count;
  list.front().count -= count;
  if (list.front().count == 0) list.erase(list.begin());
}

/// The samples that one rank processes in one call of step().
struct work_assignment {
  i64 epoch = 0;
  std::span<i64 const> samples{};  ///< valid until the next call of deal()
};

/// A sampler that tracks which of the samples it dealt were consumed.
///
///     deal → compute, step → commit | rollback;   acknowledge when all ranks hold the committed updates
///
/// A call is committed when its update was applied. Until models are merged, a worker's part of the call is
/// in its own parameters only; if the worker fails before `acknowledge`, that part is requeued. Requeued
/// samples are dealt first, to all ranks; then the epoch continues at its position. Without failures the
/// assignments equal those of `sampler`.
///
/// State        the position, the requeued ranges, and the calls committed since the last
///              `acknowledge`: equal on all ranks that took part in them. Only `broadcast` communicates.
/// Choices      a call deals from one sample_range, so a call that deals requeued samples may be short; its
///              shares are then proportional to the planned ones. Samples of a skipped update are consumed.
class dealer {
 public:
  /// @throws std::invalid_argument if size is not in [1, 2⁶²]
  explicit dealer(i64 size, std::uint64_t seed = 0) : sampler_(size, seed), position_(sampler_.state()) {}

  /// The samples of `rank` in the next call, which has number `call`. @throws std::invalid_argument as
  /// sampler::deal
  [[nodiscard]] work_assignment deal(batch_plan const& plan, int rank, i64 call) {
    expects(rank >= 0 && rank < std::ssize(plan.share), "dealer: rank must lie in [0, ", plan.share.size(),
            "), got ", rank);
    in_progress_ = {};
    in_progress_.call = call;
    if (plan.shards > 0) return deal_shard(plan, rank);
    i64 total = 0;
    for (i64 const b : plan.share) total += b;
    sample_range const from =
        requeued_.empty() ? sample_range{position_.epoch, position_.cursor, remaining()} : requeued_.front();
    in_progress_.share = plan.share;
    if (total > from.count)
      detail::apportion_into(from.count, std::span(plan.share), in_progress_.share, order_);
    in_progress_.range = {from.epoch, from.first, std::min(total, from.count)};
    seek(from);
    return {from.epoch, sampler_.deal(in_progress_.share, rank)};
  }

  /// The update of the last dealt call was applied: its samples are consumed.
  void commit() {
    if (in_progress_.call == 0) return;
    entry const e = std::exchange(in_progress_, {});
    if (e.last_shard) {
      advance(e.range.count);
      shard_call_ = 0;
    } else if (e.share.empty()) {
      ++shard_call_;
    } else {
      if (requeued_.empty())
        advance(e.range.count);
      else
        remove_front(requeued_, e.range.count);
      unacknowledged_.push_back(e);
    }
  }
  /// The last dealt call was not applied, unless `calls` includes it.
  void rollback(i64 calls) {
    if (in_progress_.call != 0 && in_progress_.call <= calls) return commit();
    in_progress_ = {};
    shard_call_ = 0;
  }

  /// All committed updates are in the parameters of all ranks.
  void acknowledge() noexcept { unacknowledged_.clear(); }

  /// After a recovery: the last `voided` calls up to `calls` are void. Of the other calls since the last
  /// `acknowledge`, the parts of ranks with keeps[rank] == 0 are requeued: ranks that did not keep their
  /// model.
  void recover(i64 calls, i64 voided, std::span<char const> keeps) {
    rollback(calls);
    for (; !unacknowledged_.empty() && unacknowledged_.back().call > calls - voided;
         unacknowledged_.pop_back())
      return_range(unacknowledged_.back().range);
    for (entry const& e : unacknowledged_) {
      i64 first = e.range.first;
      for (std::size_t r = 0; r < e.share.size(); ++r) {
        if (r >= keeps.size() || keeps[r] == 0) insert_range(requeued_, {e.range.epoch, first, e.share[r]});
        first += e.share[r];
      }
    }
    unacknowledged_.clear();
    shard_call_ = 0;
  }

  /// Replaces the state on all ranks by that of rank `root`. A rank on which it throws keeps its state.
  /// A collective call.
  template <class C>
  void broadcast(C& comm, int root) {
    std::vector<i64> state = numbers();
    std::array<i64, 1> numbers_of_root{std::ssize(state)};
    comm.broadcast(view(numbers_of_root, "dealer"), root).wait();
    state.resize(static_cast<std::size_t>(numbers_of_root[0]));
    comm.broadcast(view(state, "dealer: state"), root).wait();
    expects(state[0] == position_.size, "dealer: the data set has ", position_.size, " samples here but ",
            state[0], " on rank ", root);
    if (comm.rank() != root) restore(state);
  }

  /// The number of epochs whose samples are all consumed, provided that all committed calls are acknowledged.
  [[nodiscard]] i64 epoch() const noexcept {
    return requeued_.empty() ? position_.epoch : std::min(requeued_.front().epoch, position_.epoch);
  }
  [[nodiscard]] i64 size() const noexcept { return position_.size; }
  /// Samples that are dealt again, before the rest of the epoch; ordered and disjoint.
  [[nodiscard]] std::vector<sample_range> const& requeued() const noexcept { return requeued_; }
  [[nodiscard]] sampler_state const& position() const noexcept { return position_; }

  /// The state as numbers, for a checkpoint. @pre no call is in progress or unacknowledged
  [[nodiscard]] std::vector<i64> state() const {
    expects(unacknowledged_.empty() && in_progress_.call == 0 && shard_call_ == 0,
            "dealer: state() needs all dealt calls acknowledged; call finish() first");
    return numbers();
  }
  /// @throws std::invalid_argument if `state` was not made by state(), or for a data set of another size
  void restore(std::span<i64 const> state) {
    expects(state.size() >= 4 && state.size() % 3 == 1, "dealer: a state of ", state.size(), " numbers");
    sampler_state const at{state[0], static_cast<std::uint64_t>(state[1]), state[2], state[3]};
    sampler_.restore(at);
    std::vector<sample_range> all;
    for (std::size_t k = 4; k < state.size(); k += 3) {
      sample_range const s{state[k], state[k + 1], state[k + 2]};
      i64 const dealt = s.epoch == at.epoch ? at.cursor : at.size;
      expects(
          s.epoch >= 0 && s.epoch <= at.epoch && s.first >= 0 && s.count > 0 && s.first <= dealt - s.count,
          "dealer: no samples ", s.first, " + ", s.count, " of epoch ", s.epoch,
          " can be requeued at sample ", at.cursor, " of epoch ", at.epoch, " of ", at.size);
      expects(all.empty() || all.back().epoch < s.epoch ||
                  (all.back().epoch == s.epoch && all.back().first + all.back().count <= s.first),
              "dealer: samples ", s.first, " + ", s.count, " of epoch ", s.epoch,
              " are requeued out of order, or twice");
      insert_range(all, s);
    }
    position_ = at;
    requeued_ = std::move(all);
    unacknowledged_.clear();
    in_progress_ = {};
    shard_call_ = 0;
  }

 private:
  struct entry {
    i64 call = 0;  // 0: no call
    sample_range range{};
    std::vector<i64> share{};  // per rank; empty with logical shards
    bool last_shard = false;   // this call ends an update
  };

  [[nodiscard]] std::vector<i64> numbers() const {
    std::vector<i64> out{position_.size, static_cast<i64>(position_.seed), position_.epoch, position_.cursor};
    for (sample_range const& s : requeued_) out.insert(out.end(), {s.epoch, s.first, s.count});
    return out;
  }

  [[nodiscard]] i64 remaining() const noexcept { return position_.size - position_.cursor; }

  void seek(sample_range const& s) { sampler_.restore({position_.size, position_.seed, s.epoch, s.first}); }

  // Shards are spread over all workers: an update is applied as a whole, or none of its samples is consumed.
  [[nodiscard]] work_assignment deal_shard(batch_plan const& plan, int rank) {
    expects(requeued_.empty(),
            "dealer: samples are requeued, which logical shards never do; was the policy changed?");
    i64 const shard = shard_of(plan, static_cast<int>(plan.share.size()), rank, shard_call_);
    in_progress_.last_shard = shard_call_ + 1 == plan.calls_per_update;
    in_progress_.range = {position_.epoch, position_.cursor, std::min(plan.total, remaining())};
    seek(in_progress_.range);
    return {position_.epoch, sampler_.deal_shard(plan, shard)};
  }

  void advance(i64 count) {
    position_.cursor += count;
    if (position_.cursor < position_.size) return;
    position_.cursor = 0;
    ++position_.epoch;
  }

  // The latest range moves the position back, so that the epoch continues as if it had not been dealt.
  void return_range(sample_range const& s) {
    bool const just_dealt = s.epoch == position_.epoch && s.first + s.count == position_.cursor;
    bool const ended_epoch =
        s.epoch + 1 == position_.epoch && position_.cursor == 0 && s.first + s.count == position_.size;
    if (just_dealt || ended_epoch) {
      position_.epoch = s.epoch;
      position_.cursor = s.first;
    } else {
      insert_range(requeued_, s);
    }
  }

  sampler sampler_;
  sampler_state position_;              // of the samples that were not dealt yet
  std::vector<sample_range> requeued_;  // ordered, disjoint
  std::vector<entry> unacknowledged_;   // committed calls
  entry in_progress_;
  i64 shard_call_ = 0;  // committed calls of the current update
  std::vector<i64> order_;
};

}  // namespace limber::elastic

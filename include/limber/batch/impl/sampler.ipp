// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/apportion.hpp>
#include <limber/batch/permutation.hpp>
#include <limber/batch/sampler.hpp>

#include <limits>

namespace limber {

LIMBER_FN std::span<i64 const> sampler::deal(std::span<i64 const> share, int rank) {
  i64 const total = total_of(share);
  auto const ranks = static_cast<i64>(share.size());
  expects(rank >= 0 && rank < ranks, "sampler: rank must lie in [0, ", ranks, "), got ", rank);
  // Grown here, so that the short step at the end of an epoch allocates nothing either.
  short_share_.resize(share.size());
  order_.resize(share.size());
  if (total > remaining()) {
    detail::apportion_into(remaining(), share, short_share_, order_);
    share = short_share_;
  }
  i64 first = 0;
  for (i64 r = 0; r < rank; ++r) first += share[static_cast<std::size_t>(r)];
  return fill(first, share[static_cast<std::size_t>(rank)]);
}

LIMBER_FN std::span<i64 const> sampler::deal_shard(batch_plan const& plan, i64 shard) {
  expects(plan.shards >= 1, "sampler: the plan has no shards");
  expects(plan.total >= 1, "sampler: the plan's total must be at least 1, got ", plan.total);
  expects(shard >= -1 && shard < plan.shards, "sampler: shard must lie in [-1, ", plan.shards, "), got ",
          shard);
  if (shard < 0) return {};
  i64 const dealt = math::min(plan.total, remaining());
  i64 const each = dealt / plan.shards, odd = dealt % plan.shards;
  return fill(shard * each + math::min(shard, odd), each + (shard < odd ? 1 : 0));
}

LIMBER_FN void sampler::advance(i64 total) {
  expects(total >= 0, "sampler: cannot advance by ", total, " samples");
  if (total < remaining()) {
    state_.cursor += total;
  } else {
    state_.cursor = 0;
    ++state_.epoch;
  }
}

LIMBER_FN std::span<i64 const> sampler::take(std::span<i64 const> share, int rank) {
  auto const mine = deal(share, rank);
  advance(total_of(share));
  return mine;
}

LIMBER_FN void sampler::restore(sampler_state const& state) {
  expects(state.size == state_.size, "sampler: the state is of ", state.size, " samples, the data set has ",
          state_.size);
  state_ = checked(state);
}

LIMBER_FN sampler_state const& sampler::checked(sampler_state const& s) {
  expects(s.size >= 1 && s.size <= (i64{1} << 62), "sampler: size must lie in [1, 2^62], got ", s.size);
  expects(s.epoch >= 0, "sampler: epoch must not be negative, got ", s.epoch);
  expects(s.cursor >= 0 && s.cursor < s.size, "sampler: cursor must lie in [0, ", s.size, "), got ",
          s.cursor);
  return s;
}

LIMBER_FN i64 sampler::total_of(std::span<i64 const> share) {
  i64 total = 0;
  for (std::size_t r = 0; r < share.size(); ++r) {
    expects(share[r] >= 0, "sampler: share of rank ", r, " must not be negative, got ", share[r]);
    expects(share[r] <= std::numeric_limits<i64>::max() - total, "sampler: shares up to rank ", r,
            " overflow");
    total += share[r];
  }
  // A step of no samples would leave an epoch forever unfinished.
  expects(total >= 1, "sampler: the shares of ", share.size(), " ranks sum to 0");
  return total;
}

LIMBER_FN std::span<i64 const> sampler::fill(i64 first, i64 count) {
  permutation const at(state_.size, state_.seed, static_cast<std::uint64_t>(state_.epoch));
  dealt_.resize(static_cast<std::size_t>(count));
  i64 position = state_.cursor + first;
  for (i64& sample : dealt_) sample = at(position++);
  return dealt_;
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Deals the samples of a data set to a changing set of workers, each exactly once an epoch.

#include <limber/batch/plan.hpp>
#include <limber/core/config.hpp>

#include <span>
#include <type_traits>
#include <vector>

namespace limber {

/// All that a sampler is; equal on every rank, saved with a checkpoint, handed to joiners.
struct sampler_state {
  i64 size = 1;            ///< samples in the data set, N
  std::uint64_t seed = 0;  ///< of the permutations
  i64 epoch = 0;           ///< epochs completed
  i64 cursor = 0;          ///< samples of this epoch that were consumed, in [0, N)

  friend bool operator==(sampler_state const&, sampler_state const&) = default;
};

static_assert(std::is_trivially_copyable_v<sampler_state> && sizeof(sampler_state) == 32);

/// Deals distinct samples from one seeded permutation of the data set, a new one each epoch.
///
///     update u takes positions [c, c + min(B, N − c)) of the permutation of (seed, epoch)
///
/// in rank order: rank r gets bᵣ of them. Which samples an update sees depends on Σ bᵢ alone, not on
/// who takes them. Every rank holds an equal replica, and nothing is communicated.
///
/// Shapes   1 ≤ N ≤ 2⁶²; shares ≥ 0, one a rank, with a positive sum; sample indices in [0, N).
/// State    `state()`, 32 bytes; the permutation is computed, not stored.
/// Cost     O(bᵣ) permutation elements and O(ranks); no allocation once the buffers have grown.
/// Choices  an epoch never mixes with the next. When fewer than Σ bᵢ samples remain, the last step is
///          short, and what remains is dealt in proportion to the shares (largest remainder), so some
///          ranks may get none. `advance` past the last sample begins the next epoch at once.
///
/// `deal` looks, `advance` consumes, `take` does both. A step whose worker died before the step was
/// applied is dealt again by not advancing, or by `restore` of a state saved before it.
///
///     while (s.epoch() < 90) train_on(s.take(plan.share, rank));
class sampler {
 public:
  /// @throws std::invalid_argument if size is not in [1, 2⁶²]
  explicit sampler(i64 size, std::uint64_t seed = 0) : sampler(sampler_state{.size = size, .seed = seed}) {}

  /// Continues from a saved state. @throws std::invalid_argument if no sampler can be in it
  explicit sampler(sampler_state const& state) : state_(checked(state)) {}

  /// The samples of `rank` in the coming step. Valid until the next call of deal, deal_shard or take.
  /// @throws std::invalid_argument naming the rank whose share is negative, or a rank out of range
  [[nodiscard]] std::span<i64 const> deal(std::span<i64 const> share, int rank);

  /// The samples of a logical shard in the coming update; none for shard −1 (a rank without a shard).
  ///
  /// The same for every number of workers: shards share the update's samples equally, in a short last
  /// step too (the first shards get the odd ones). After the last call of an update, every rank calls
  /// `advance(plan.total)`. Valid until the next call of deal, deal_shard or take.
  /// @throws std::invalid_argument if the plan has no shards, or the shard is out of range
  [[nodiscard]] std::span<i64 const> deal_shard(batch_plan const& plan, i64 shard);

  /// Consumes the coming `total` samples, or what the epoch still has. Every rank must call it alike.
  /// @throws std::invalid_argument if total is negative
  void advance(i64 total);

  /// This rank's samples of the coming step, which is consumed by all ranks. @throws as deal
  [[nodiscard]] std::span<i64 const> take(std::span<i64 const> share, int rank);

  [[nodiscard]] i64 size() const noexcept { return state_.size; }

  /// Epochs completed; the one under way when counted from 0.
  [[nodiscard]] i64 epoch() const noexcept { return state_.epoch; }

  /// Samples that this epoch still has, ≥ 1.
  [[nodiscard]] i64 remaining() const noexcept { return state_.size - state_.cursor; }

  [[nodiscard]] sampler_state const& state() const noexcept { return state_; }

  /// Goes to a saved state, back or forth.
  /// @throws std::invalid_argument if it is no valid state, or of a data set of another size
  void restore(sampler_state const& state);

 private:
  [[nodiscard]] static sampler_state const& checked(sampler_state const& s);

  [[nodiscard]] static i64 total_of(std::span<i64 const> share);

  [[nodiscard]] std::span<i64 const> fill(i64 first, i64 count);

  sampler_state state_;
  std::vector<i64> dealt_;
  std::vector<i64> short_share_;
  std::vector<i64> order_;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/sampler.ipp>
#endif

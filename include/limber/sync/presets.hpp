// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Strategies by name: each is one row of choices over the stages of an exchange. Others stand in
/// strategies.hpp.

#include <limber/core/units.hpp>
#include <limber/sync/exchange.hpp>

namespace limber::sync {

/// Synchronous SGD: the gradient is averaged over all samples of all workers, every `period` calls
/// (more than one is gradient accumulation).
///
/// Collectives  one all-reduce per bucket and one of 40 bytes, every `period` calls.
/// Paper        Goyal et al., Accurate, Large Minibatch SGD, 2017, arXiv:1706.02677 (weights: their
///              remark 3).
struct allreduce {
  i64 period = 1;

  [[nodiscard]] exchange parts() const;
};

/// Local SGD: every worker steps on its own gradient; models are averaged every `period` calls,
/// weighted by the samples each applied. With `from`, post-local SGD: every call until then.
///
/// Units        the rate is for one step's total batch; it is not multiplied by `period`. `from` is in
///              steps, samples or epochs of planned progress: where the rate first decays, in the paper.
/// State        gradient history stays each worker's own unless `at_merge` says otherwise.
/// Collectives  one all-reduce of the model every `period` calls, none in between.
/// Choices      a merge follows call `period`, 2·`period`, …; the official code merges after call 1,
///              `period` + 1, ….
/// Paper        Lin, Stich, Patel and Jaggi, Don't Use Large Mini-Batches, Use Local SGD, ICLR 2020,
///              arXiv:1808.07217.
struct local {
  i64 period = 1;
  moments at_merge = moments::keep;
  amount from{0, unit::steps};

  [[nodiscard]] exchange parts() const;
};

/// Hierarchical local SGD: blocks of `block_size` neighbouring ranks average every `period` calls, all
/// workers every `period` · `block_periods`.
///
/// Collectives  one all-reduce of the model in the block or, less often, over all. Needs a `splittable`
/// collective. Paper        Lin, Stich, Patel and Jaggi, arXiv:1808.07217, hierarchical local SGD.
struct hierarchical {
  int block_size = 1;
  i64 period = 1;         ///< H, calls between averages of a block
  i64 block_periods = 1;  ///< H_b, of those between averages of all
  moments at_merge = moments::keep;

  static constexpr capabilities needs = can_split;
  [[nodiscard]] exchange parts() const;
};

/// SlowMo: local SGD with a slow momentum over what the rounds moved.
///
///     u ← β u + (x̃ − x̄) / γ;   x̃ ← x̃ − α γ u          γ: the rate of the round's last step
///
/// Choices      β = 0 and α = 1 is local SGD. A round whose rates were all 0 moves nothing.
/// Collectives  those of local SGD.
/// Paper        Wang, Tantia, Ballas and Rabbat, SlowMo: Improving Communication-Efficient Distributed SGD
///              with Slow Momentum, ICLR 2020, arXiv:1910.00643, Algorithm 1.
struct slowmo {
  i64 period = 1;
  double beta = 0.6;                  ///< β, slow momentum
  double alpha = 1;                   ///< α, slow rate
  moments at_merge = moments::reset;  ///< the base rule's history at a merge; the paper tries all three

  [[nodiscard]] exchange parts() const;
};

/// DiLoCo: many local steps, then an outer Nesterov step on the mean difference of models.
///
///     Δ = x̃ − x̄;   m ← μ m + Δ;   x̃ ← x̃ − η_o (Δ + μ m)
///
/// State        the inner rule's history is each worker's own and never averaged, in the paper.
/// Choices      any rule can be the outer one: `merge` takes it. Means are weighted by samples.
/// Collectives  one all-reduce of the model every `period` calls.
/// Paper        Douillard et al., DiLoCo: Distributed Low-Communication Training of Language Models, 2023,
///              arXiv:2311.08105.
struct diloco {
  i64 period = 500;
  double outer_lr = 0.7;             ///< η_o
  double outer_momentum = 0.9;       ///< μ; 0 with η_o = 1 is local SGD
  moments at_merge = moments::keep;  ///< the inner rule's history at a merge

  [[nodiscard]] exchange parts() const;
};

/// Lookahead: synchronous SGD whose model goes back, every `period` updates, part of its way.
///
///     x̃ ← x̃ + α (x − x̃);   x ← x̃
///
/// Choices      the inner history is kept or reset. To average it with nobody is to keep it. The paper also
///              tries the history's own slow copy, interpolated as the model is: not here, because a merge
///              has an anchor for the model alone.
/// Collectives  those of synchronous SGD; the merge is each worker's own, and equal on all.
/// Paper        Zhang, Lucas, Hinton and Ba, Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019,
///              arXiv:1907.08610.
struct lookahead {
  i64 period = 5;                    ///< k, updates
  double alpha = 0.5;                ///< α; 1 is synchronous SGD
  moments at_merge = moments::keep;  ///< keep or reset; average is keep

  [[nodiscard]] exchange parts() const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/presets.ipp>
#endif

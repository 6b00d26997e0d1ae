// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Strategies by name: each is one row of choices over the pieces of an exchange.

#include <limber/rule/descent.hpp>
#include <limber/rule/sgd.hpp>
#include <limber/sync/exchange.hpp>

#include <cstdint>

namespace limber::sync {

/// Synchronous SGD: the gradient is averaged over all samples of all workers, every `period` calls
/// (more than one is gradient accumulation).
///
/// Collectives  one all-reduce per bucket and one of 40 bytes, every `period` calls.
/// Paper        Goyal et al., Accurate, Large Minibatch SGD, 2017, arXiv:1706.02677 (weights: their
///              remark 3).
struct allreduce {
  i64 period = 1;

  [[nodiscard]] auto parts() const { return exchange(gradients(every{period}, everyone{})); }
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

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}),
                    merge(every_after{from, period}, everyone{}, descent{}, 1, at_merge));
  }
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

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}),
                    merge(every{period}, block{block_size}, descent{}, 1, at_merge),
                    merge(every{period * block_periods}, everyone{}, descent{}, 1, at_merge));
  }
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

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}), merge(every{period}, everyone{}, sgd{.momentum = beta},
                                                        alpha, at_merge, outer_rate::per_rate));
  }
};

/// DiLoCo: many local steps, then an outer Nesterov step on the mean difference of models.
///
///     Δ = x̃ − x̄;   m ← μ m + Δ;   x̃ ← x̃ − η_o (Δ + μ m)
///
/// State        the inner rule's history is each worker's own and never averaged.
/// Choices      any rule can be the outer one: `merge` takes it. Means are weighted by samples.
/// Collectives  one all-reduce of the model every `period` calls.
/// Paper        Douillard et al., DiLoCo: Distributed Low-Communication Training of Language Models, 2023,
///              arXiv:2311.08105.
struct diloco {
  i64 period = 500;
  double outer_lr = 0.7;        ///< η_o
  double outer_momentum = 0.9;  ///< μ; 0 with η_o = 1 is local SGD

  [[nodiscard]] auto parts() const {
    sgd const outer{.momentum = outer_momentum, .nesterov = outer_momentum > 0};
    return exchange(gradients(every{1}, alone{}), merge(every{period}, everyone{}, outer, outer_lr));
  }
};

/// Lookahead: synchronous SGD whose model goes back, every `period` updates, part of its way.
///
///     x̃ ← x̃ + α (x − x̃);   x ← x̃
///
/// Collectives  those of synchronous SGD; the merge is each worker's own, and equal on all.
/// Paper        Zhang, Lucas, Hinton and Ba, Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019,
///              arXiv:1907.08610.
struct lookahead {
  i64 period = 5;      ///< k, updates
  double alpha = 0.5;  ///< α; 1 is synchronous SGD

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, everyone{}), merge(every{period}, alone{}, descent{}, alpha));
  }
};

/// Elastic averaging SGD: every worker explores on its own, tied to a centre by an elastic force. With
/// `sgd{.momentum, .nesterov = true}` as the rule it is EAMSGD.
///
/// Units        `moving_rate` is β = workers · α, the share of the way that the centre goes to the mean of
///              the models; 0.9 per worker instead of over all is unstable.
/// Choices      the synchronous form: every worker meets the centre at the same call. `evaluate` shows the
///              centre; models stay apart, also after `finish`. A joiner starts from the workers' mean.
/// Collectives  one all-reduce of the model every `period` calls.
/// Paper        Zhang, Choromanska and LeCun, Deep Learning with Elastic Averaging SGD, NIPS 2015,
///              arXiv:1412.6651, equations 2 and 3.
struct elastic_averaging {
  i64 period = 10;           ///< τ
  double moving_rate = 0.9;  ///< β, in [0, 1]

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}), elastic(every{period}, moving_rate));
  }
};

/// Gossiping SGD over random matchings: every worker steps on its own gradient and averages its model,
/// every `period` calls, with one random partner.
///
/// Choices      of the paper's family the form that keeps the mean: both partners take the average. Its pull
///              and push forms, where nobody waits for the partner, need a mailbox and are not here.
///              Buffers are averaged by `evaluate` alone. `evaluate` shows the mean of all models.
/// Collectives  none while training: one message to and from the partner every `period` calls.
/// Paper        Jin, Yuan, Iandola and Keutzer, How to scale distributed deep learning?, 2016,
///              arXiv:1611.04581; matchings as in Boyd et al., Randomized Gossip Algorithms, 2006.
struct gossip {
  i64 period = 1;
  std::uint64_t seed = 0;  ///< of the matchings

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}), matching(every{period}, seed));
  }
};

/// ABS-SGD: while the sum of one round's gradients crosses, every worker computes the next round's at a
/// fixed model, without a batch size set in advance: as many micro-batches as fit.
///
///     gradient of round t:  Σᵢ Gᵢ / Σᵢ nᵢ  over all micro-batches of all workers, taken at xₜ
///     xₜ₊₁ = rule(xₜ, gradient of round t − 1)
///
/// Call         step(n) once a micro-batch; workers may call it unequally often. report.applied says that an
///              update was made; finish() closes the rounds that others still need, and flushes the last.
/// Choices      a round closes when every worker has folded in a micro-batch and the exchange before has
///              arrived; who has `max_micro_batches` closes it by itself. 1 is synchronous SGD with a
///              delay of one step at a fixed batch (OD-SGD).
/// Units        the planned batch is one micro-batch of every worker; `rate` says how η follows what a
///              round held. With delay 1 and momentum μ a curvature h is stable for η h < 1 − μ alone: tune
///              η and μ for this strategy.
/// Bits         not repeatable on a real clock; `log` with `replay` gives the same bits again.
/// State        taken between rounds only: finish() first. Buffers are averaged by finish().
/// Collectives  one all-reduce per bucket and one of 48 bytes a round, hidden behind computing, and one
///              8-byte message a round to every other worker. Needs a `mailbox`.
/// Paper        Zhou, Chen and Wu, ABS-SGD: A Delayed Synchronous Stochastic Gradient Descent Algorithm with
///              Adaptive Batch Size for Heterogeneous GPU Clusters, 2023, arXiv:2308.15164. Of it only the
///              abstract was at hand: when a round closes, and `rate`, are our reading.
struct abs_sgd {
  i64 max_micro_batches = 0;  ///< 0: however many fit
  round_rate rate = round_rate::constant;
  double rate_limit = 0;              ///< how much `rate` may multiply η at most; 0: no limit
  round_log* log = nullptr;           ///< what each round of this rank held
  round_log const* replay = nullptr;  ///< closes rounds as this log says

  [[nodiscard]] auto parts() const {
    return exchange(delayed{{1, max_micro_batches}, {}, rate, rate_limit, log, replay});
  }
};
static_assert(strategy<allreduce> && strategy<local> && strategy<hierarchical> && strategy<slowmo> &&
              strategy<diloco> && strategy<lookahead> && strategy<elastic_averaging> && strategy<gossip>);

}  // namespace limber::sync

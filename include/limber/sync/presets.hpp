// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Strategies by name: each is one row of choices over the pieces of an exchange.

#include <limber/rule/descent.hpp>
#include <limber/rule/sgd.hpp>
#include <limber/sync/asynchronous_elastic.hpp>
#include <limber/sync/asynchronous_gossip.hpp>
#include <limber/sync/exchange.hpp>
#include <limber/sync/parameter_server.hpp>
#include <limber/sync/push_sum.hpp>
#include <limber/sync/streaming.hpp>

#include <cstdint>
#include <optional>

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

  [[nodiscard]] auto parts() const {
    sgd const outer{.momentum = outer_momentum, .nesterov = outer_momentum > 0};
    return exchange(gradients(every{1}, alone{}),
                    merge(every{period}, everyone{}, outer, outer_lr, at_merge));
  }
};

/// Streaming DiLoCo: DiLoCo in `fragments`, each of which crosses at its own call and lands `late` calls on,
/// hidden behind computing.
///
///     Δᶠ = x̃ᶠ − x̄ᶠ;   mᶠ ← μ mᶠ + Δᶠ;   x̃ᶠ ← x̃ᶠ − η_o (Δᶠ + μ mᶠ);   xᶠ ← α xᶠ + (1 − α) x̃ᶠ
///
/// Units        `late` in calls, less than `period` / `fragments`. `wire` halves the bytes of what crosses.
/// Choices      fragments are whole tensors, equal in size as far as these allow; equal layers are dealt in
///              strides. One fragment, `late` = 0 and `mixing` = 0 is `diloco`. finish() lands what is in
///              flight and merges all.
/// Collectives  one all-reduce of a fragment, `fragments` times a period.
/// Paper        Douillard et al., Streaming DiLoCo with Overlapping Communication: Towards a Distributed Free
///              Lunch, 2025, arXiv:2501.18512.
struct streaming_diloco {
  i64 period = 100;
  i64 fragments = 4;
  i64 late = 5;                      ///< calls from sending to landing
  double mixing = 0.5;               ///< α, what stays of the local model at landing, in [0, 1)
  double outer_lr = 0.7;             ///< η_o
  double outer_momentum = 0.9;       ///< μ
  std::optional<dtype> wire{};       ///< bf16 or f16: what differences are cast to
  moments at_merge = moments::keep;  ///< the inner rule's history of what lands

  [[nodiscard]] auto parts() const {
    sgd const outer{.momentum = outer_momentum, .nesterov = outer_momentum > 0};
    return exchange(gradients(every{1}, alone{}),
                    streaming(stream{period, fragments, late, mixing, wire}, outer, outer_lr, at_merge));
  }
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

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, everyone{}),
                    merge(every{period}, alone{}, descent{}, alpha, at_merge));
  }
};

/// Elastic averaging SGD: every worker explores on its own, tied to a centre by an elastic force. With
/// `sgd{.momentum, .nesterov = true}` as the rule it is EAMSGD.
///
/// Units        `moving_rate` is β = workers · α, the share of the way that the centre goes to the mean of
///              the models; 0.9 per worker instead of over all is unstable.
/// Choices      the synchronous form: every worker meets the centre at the same call. `evaluate` shows the
///              centre; models stay apart, also after `finish`. A joiner starts from the workers' mean.
/// Collectives  one all-reduce of the model every `period` calls; one more of the history to average it.
/// Paper        Zhang, Choromanska and LeCun, Deep Learning with Elastic Averaging SGD, NIPS 2015,
///              arXiv:1412.6651, equations 2 and 3.
struct elastic_averaging {
  i64 period = 10;                   ///< τ
  double moving_rate = 0.9;          ///< β, in [0, 1]
  moments at_merge = moments::keep;  ///< each worker's history at an exchange; the paper keeps it

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}), elastic(every{period}, moving_rate, at_merge));
  }
};

/// Gossiping SGD in rounds: every worker steps on its own gradient and averages its model, every `period`
/// calls, with those of random others.
///
/// Choices      `how`: a random matching, in which both partners take the average, keeps the mean of all
///              models; the paper's pull and push do not. All ranks take part in a round; without rounds it
///              is `asynchronous_gossip`. Buffers are averaged by `evaluate` alone, which shows the mean of
///              all models; with a large rate it is better than each of them, and the gap grows with rate ·
///              period.
/// State        history of gradients stays each worker's own unless `at_merge` says otherwise.
/// Collectives  none while training: one message a worker (matching: to and from its partner) every `period`
///              calls. Needs a `point_to_point` collective.
/// Paper        Jin, Yuan, Iandola and Keutzer, How to scale distributed deep learning?, 2016,
///              arXiv:1611.04581; matchings as in Boyd et al., Randomized Gossip Algorithms, 2006.
struct gossip {
  i64 period = 1;                         ///< τ
  gossip_how how = gossip_how::matching;  ///< or pull, push
  std::uint64_t seed = 0;                 ///< of who exchanges with whom
  moments at_merge = moments::keep;       ///< history at an exchange: the paper keeps it

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}), gossip_round(every{period}, how, seed, at_merge));
  }
};

/// Gossiping SGD without rounds: models of random others are averaged in when they arrive, and nobody waits.
///
/// Call         workers may call step() unequally often; finish() is a call of all, and takes in what is in
///              flight. A worker that is dead or lags delays nobody before.
/// Choices      `push` posts the own model every `period` updates; `pull` asks for another's, and averages
///              half and half when the answer is there: with equal workers at the next call.
/// State        as in `gossip`; `evaluate` shows the mean of all models and serves requests meanwhile.
/// Bits         not repeatable on a real clock.
/// Collectives  none while training. Needs a `mailbox`.
/// Paper        Jin, Yuan, Iandola and Keutzer, arXiv:1611.04581, algorithms 3 and 4.
struct asynchronous_gossip {
  i64 period = 1;                     ///< τ
  gossip_how how = gossip_how::push;  ///< or pull
  std::uint64_t seed = 0;             ///< of who exchanges with whom
  moments at_merge = moments::keep;   ///< history when a model is averaged in: the paper keeps it

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}), asynchronous_round(every{period}, how, seed, at_merge));
  }
};

/// Stochastic gradient push (SGP): after every update a worker keeps half of its model and pushes half to the
/// next on a directed exponential graph, with weights that correct for what is under way. With `overlap`,
/// OSGP: messages are taken in so many rounds late, hidden behind computing.
///
/// Choices      without overlap every call ends with one message to and from a neighbour; after as many calls
///              as the graph has distances, a power of two of workers agree but for their updates. With
///              overlap a worker waits only for messages that are `overlap` rounds old. `evaluate` shows Σ x
///              / Σ w.
/// State        history of gradients and moving averages stay each worker's own: an exchange follows every
///              update. finish() takes in what is in flight; do so before a checkpoint.
/// Collectives  none while training. Needs a `point_to_point` collective, or with overlap a `mailbox`.
/// Paper        Assran, Loizou, Ballas and Rabbat, Stochastic Gradient Push for Distributed Deep Learning,
/// ICML
///              2019, arXiv:1811.10792, Algorithms 1 and 2.
struct push_sum {
  i64 overlap = 0;  ///< τ, rounds

  [[nodiscard]] auto parts() const { return exchange(gradients(every{1}, alone{}), push_sum_round(overlap)); }
};
static_assert(strategy<asynchronous_gossip> && strategy<push_sum>);

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
static_assert(strategy<abs_sgd>);

/// A parameter server: gradients are applied as they arrive, each worker goes on with the answer, and nobody
/// waits for another. Plain asynchronous SGD by default.
///
///     w ← rule(w, f(τ) g)          τ: updates since the server gave that worker its model
///
/// Call         the server's rank calls opt.serve(), all others step(n) as often as they like, then finish().
///              To resize: finish() on workers, serve() on the server, then resize() on all (finish() once
///              more on who leaves).
/// Choices      `staleness` scales the gradient, and momentum at the server sees it scaled; a rule that
///              divides by the gradient's size (Adam) hardly notices. `compensation` adds λ g⊙g⊙(w − w_bak),
///              DC-ASGD; 0.04 constant and 2 adaptive in the paper. `softsync` gradients are averaged by
///              samples into one update; those that contributed are answered at once all the same.
/// Bound        stale synchronous: no worker is more than `bound` calls ahead of the slowest that trains; 0
///              is as good as synchronous, and is it, exactly, with `softsync` = workers.
/// Units        the planned batch is `softsync` workers' share. A delay of d updates narrows the range of
///              stable η by more than d with momentum: tune both for this strategy.
/// State        the rule's is the server's while it serves; finish() brings model, rule state and progress to
///              every rank, so that any can serve next. Buffers are averaged by finish().
/// Bits         those of the order of arrival: one worker has the plain rule's.
/// Collectives  none while training: a gradient to the server and a model from it, every call. finish()
///              broadcasts model and state, and waits for all: the deadline of the collective must allow for
///              the worker that is last. Needs a `mailbox`.
/// Paper        Zhang, Gupta, Lian and Liu, Staleness-aware Async-SGD for Distributed Deep Learning, IJCAI
///              2016, arXiv:1511.05950; Zheng et al. (DC-ASGD), ICML 2017, arXiv:1609.08326; Ho et al., More
///              Effective Distributed ML via a Stale Synchronous Parallel Parameter Server, NIPS 2013.
struct parameter_server {
  int server = 0;  ///< the rank that serves
  staleness_rule staleness = staleness_rule::none;
  double compensation = 0;             ///< λ, ≥ 0; 0: none
  bool adaptive_compensation = false;  ///< λ/√(mean of g⊙g)
  i64 bound = -1;                      ///< calls that a worker may be ahead; -1: however many
  i64 softsync = 1;                    ///< gradients in one update
  server_log* log = nullptr;           ///< what the server took, for its histogram of staleness

  [[nodiscard]] auto parts() const {
    return exchange(
        server_gradients{server, staleness, compensation, adaptive_compensation, bound, softsync, log}
            .checked());
  }
};

/// Asynchronous elastic averaging SGD: every worker, on its own and whenever it has made `period` updates,
/// meets a centre at the server. With `sgd{.momentum, .nesterov = true}` as the rule it is EAMSGD.
///
///     e = α (xᵢ − x̃);   xᵢ ← xᵢ − e;   x̃ ← x̃ + e          α = moving_rate / workers
///
/// Call         as for `parameter_server`; `evaluate` shows the centre, and need not be called by all.
/// Units        `moving_rate` is β = workers · α; 0.9 per worker instead of over all is unstable.
/// Choices      a step is one update of each worker: each counts its own, the server those of the one that is
///              furthest; samples are everybody's, as of a worker's last exchange. After finish() all count
///              alike. Models stay apart, also then.
/// State        gradient history is the worker's own. finish() brings the centre to every rank, and averages
///              buffers.
/// Collectives  none while training: the model to the server and the centre from it, every `period` updates.
///              finish() as for `parameter_server`. Needs a `mailbox`.
/// Paper        Zhang, Choromanska and LeCun, Deep Learning with Elastic Averaging SGD, NIPS 2015,
///              arXiv:1412.6651, Algorithms 1 and 2; algorithm 5.2 of Jin et al., arXiv:1611.04581.
struct asynchronous_elastic_averaging {
  i64 period = 10;                   ///< τ, updates of the worker
  double moving_rate = 0.9;          ///< β, in [0, 1]
  int server = 0;                    ///< the rank that keeps the centre
  moments at_merge = moments::keep;  ///< the worker's history at an exchange: keep or reset

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}),
                    asynchronous_elastic(every{period}, moving_rate, server, at_merge));
  }
};
static_assert(strategy<parameter_server> && strategy<asynchronous_elastic_averaging>);

static_assert(strategy<allreduce> && strategy<local> && strategy<hierarchical> && strategy<slowmo> &&
              strategy<diloco> && strategy<streaming_diloco> && strategy<lookahead> &&
              strategy<elastic_averaging> && strategy<gossip>);

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A parameter server, a strategy and its stage before the rule: gradients are applied as they arrive.

#include <limber/sync/exchange.hpp>
#include <limber/sync/stage.hpp>

#include <vector>

namespace limber::sync {

/// The weight of a gradient that is τ updates late.
enum class staleness_rule {
  none,     ///< 1
  inverse,  ///< 1/max(1, τ)
};

/// The gradients that a server used, in the order in which they arrived.
struct server_log {
  struct entry {
    int worker = 0;
    i64 staleness = 0;  ///< τ, updates
    i64 samples = 0;
    i64 steps = 0;  ///< updates that the server had made when it arrived
  };
  std::vector<entry> entries;

  /// How many gradients were 0, 1, 2, … updates late.
  [[nodiscard]] std::vector<i64> histogram() const;
};

/// A parameter server: gradients are sent to it, it updates as they arrive and replies with its model; each
/// worker goes on with the answer, and nobody waits for another. Plain asynchronous SGD by default.
///
///     ḡ = Σ f(τᵢ) bᵢ gᵢ / Σ bᵢ      over `softsync` gradients in order of arrival, whoever sent them
///     w ← rule(w, ḡ)                at the server; f is 1 or 1/max(1, τ)
///
/// Call         the server's rank calls opt.serve(), all others step(n) as often as they like, then finish().
///              To resize: finish() on workers, serve() on the server, then resize() on all (finish() once
///              more on who leaves).
/// Staleness    τ: updates that the server has made since it sent that worker the model that g was taken at.
/// Choices      `staleness` scales the gradient, and momentum at the server sees it scaled; a rule that
///              divides by the gradient's size (Adam) hardly notices. `compensation` adds λ g⊙g⊙(w − w_bak),
///              DC-ASGD; 0.04 constant and 2 adaptive in the paper. `softsync` gradients are averaged by
///              samples into one update; those that contributed are answered at once all the same.
/// Bound        stale synchronous: no worker gets a reply while it has made more than `bound` calls more than
///              the slowest that still trains, calls without samples included; 0 is as good as synchronous,
///              and is it, exactly, with `softsync` = workers.
/// Zero         a call without samples, or with a gradient that is not finite, applies nothing; the reply
///              holds the newest model all the same.
/// Units        the planned batch is `softsync` workers' share. A delay of d updates narrows the range of
///              stable η by more than d with momentum: tune both for this strategy.
/// State        the rule's is the server's while it serves; finish() brings model, rule state and progress to
///              every rank, so that any can serve next. Buffers are averaged by finish().
/// Bits         those of the order of arrival: one worker has the plain rule's.
/// Memory       every rank: a gradient and a model on the executor's side and on the host's. The server: with
///              softsync > 1 a gradient more; with compensation the compensated gradient and a model for each
///              worker. Adaptive: two gradients more on every rank, for the mean square.
/// Collectives  none while training: a gradient to the server and a model from it, every call; samples and
///              Σ b‖g‖² in the message's header, the server's progress with the reply. finish() broadcasts
///              model and state, and waits for all: the deadline of the collective must allow for the worker
///              that is last. Needs a `mailbox`.
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

  static constexpr bool uniform_updates = true;  ///< there is one model, which all get
  static constexpr bool lockstep = false;        ///< ranks call step() as often as they like
  static constexpr capabilities needs = can_post;

  /// @throws std::invalid_argument naming what cannot be
  [[nodiscard]] exchange parts() const;
  [[nodiscard]] limber::detail::owner<gradient_stage> start(training_context& at) const;
};

/// The stage before the rule, for an exchange of other parts.
using server_gradients = parameter_server;

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/parameter_server.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Elastic averaging with a centre at a server, a strategy and its stage: nobody waits for another worker.

#include <limber/sync/exchange.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>

namespace limber::sync {

/// Asynchronous elastic averaging SGD: every worker, on its own and whenever it has made `period` updates,
/// meets a centre, which is the server's model. With `sgd{.momentum, .nesterov = true}` as the rule it is
/// EAMSGD.
///
///     e = α (xᵢ − x̃);   xᵢ ← xᵢ − e;   x̃ ← x̃ + e          α = moving_rate / workers
///
/// Call         as for `parameter_server`; `evaluate` shows the centre, and need not be called by all.
/// Units        `moving_rate` is β = workers · α; 0.9 per worker instead of over all is unstable.
/// Choices      xᵢ + x̃ is conserved. One request and one reply, and the server moves x̃ in between: both sides
///              use the same x̃. The paper pulls and pushes in two, so that another worker may come in
///              between. A worker whose model is not finite exerts no force and restarts from the centre. A
///              step is one update of each worker: each counts its own, the server those of the one that is
///              furthest; samples are everybody's, as of a worker's last exchange. After finish() all count
///              alike.
/// State        x̃: the server's parameters while it serves; on all ranks after finish(), which averages
///              buffers, else on each as of its last exchange. Models differ between ranks, also after
///              finish(). Gradient history is the worker's own: kept, or reset.
/// Deaths       if the server dies, its successor continues with the centre of its own last exchange. What
///              the successor itself had learnt since is lost, and its samples do not count.
/// Collectives  none while training: the model to the server and the centre from it, every `period` updates.
///              finish() as for `parameter_server`. Needs a `mailbox`.
/// Errors       std::invalid_argument unless moving_rate is in [0, 1]; when history is to be averaged: the
///              server has none. limber::error if the centre overflows.
/// Paper        Zhang, Choromanska and LeCun, Deep Learning with Elastic Averaging SGD, NIPS 2015,
///              arXiv:1412.6651, Algorithms 1 and 2; algorithm 5.2 of Jin et al., arXiv:1611.04581.
struct asynchronous_elastic_averaging {
  any_timing period = 10;            ///< τ, updates of the worker, or when else
  double moving_rate = 0.9;          ///< β, in [0, 1]
  int server = 0;                    ///< the rank that keeps the centre
  moments at_merge = moments::keep;  ///< the worker's history at an exchange: keep or reset

  static constexpr bool uniform_updates = true;  ///< the server counts the samples of all
  static constexpr bool lockstep = false;        ///< ranks call step() as often as they like
  static constexpr capabilities needs = can_post;
  [[nodiscard]] exchange parts() const;
  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

/// The stage after the rule, for an exchange of other parts.
using asynchronous_elastic = asynchronous_elastic_averaging;

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/elastic_averaging.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Elastic averaging SGD, a strategy and its stage after the rule.

#include <limber/sync/exchange.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>

namespace limber::sync {

/// Elastic averaging SGD: every worker explores on its own, tied to a centre by an elastic force. With
/// `sgd{.momentum, .nesterov = true}` as the rule it is EAMSGD. Every `period`, with everyone, towards the
/// centre as it was before:
///
///     eᵢ = α (xᵢ − x̃);   xᵢ ← xᵢ − eᵢ;   x̃ ← x̃ + Σ eᵢ          α = moving_rate / workers
///
/// Units        `moving_rate` is β = workers · α, the share of the way that the centre goes to the mean of
///              the models; 0.9 per worker instead of over all is unstable.
/// State        x̃, the centre: replicated, every rank keeps a copy. Models differ between ranks, also after
///              an exchange and after `finish`; `evaluate` shows the centre. A joiner starts from the
///              workers' mean.
/// Choices      the synchronous form: every worker meets the centre at the same call. Σ xᵢ + x̃ is conserved.
///              A worker whose model is not finite exerts no force and restarts from the centre. Ranks have
///              equal weights, whatever their samples: the force is between models, not gradients. The same
///              weights hold where `at_merge` averages gradient history, which is then the same on all ranks
///              although the models are not.
/// Collectives  one all-reduce of the model every `period` calls; one more of the history to average it.
/// Errors       std::invalid_argument unless moving_rate is in [0, 1].
/// Paper        Zhang, Choromanska and LeCun, Deep Learning with Elastic Averaging SGD, NIPS 2015,
///              arXiv:1412.6651, equations 2 and 3.
struct elastic_averaging {
  any_timing period = 10;            ///< τ, or when else
  double moving_rate = 0.9;          ///< β, in [0, 1]
  moments at_merge = moments::keep;  ///< each worker's history at an exchange; the paper keeps it

  static constexpr bool uniform_updates = true;  ///< all ranks see the same result
  [[nodiscard]] exchange parts() const;
  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

/// The stage after the rule, for an exchange of other parts.
using elastic_force = elastic_averaging;

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/elastic_averaging.ipp>
#endif

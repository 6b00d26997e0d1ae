// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The stage after the rule, with a centre: models are pulled towards it, and it towards them.

#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>

namespace limber::sync {

/// Every `when`, with everyone, towards the centre as it was before:
///
///     eᵢ = α (xᵢ − x̃);   xᵢ ← xᵢ − eᵢ;   x̃ ← x̃ + Σ eᵢ          α = moving_rate / workers
///
/// State    x̃, the centre: replicated, every rank keeps a copy. Models differ between ranks, also after an
///          exchange; `evaluate` shows the centre.
/// Choices  Σ xᵢ + x̃ is conserved. A worker whose model is not finite exerts no force and restarts from the
///          centre. Ranks have equal weights, whatever their samples: the force is between models, not
///          gradients. The same weights hold where `at_merge` averages gradient history, which is then the
///          same on all ranks although the models are not.
/// Errors   std::invalid_argument unless moving_rate is in [0, 1].
struct elastic_force {
  any_timing when;
  double moving_rate;
  moments at_merge;

  elastic_force(any_timing w, double rate, moments m = moments::keep);

  static constexpr bool uniform_updates = true;  ///< all ranks see the same result
  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/elastic_force.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The stage after the rule: models are communicated and merged.

#include <limber/fuse/any_rule.hpp>
#include <limber/rule/descent.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

namespace limber::sync {

/// What the outer rule of a merge is fed.
enum class outer_rate {
  plain,     ///< the difference of models, at the merge's own rate
  per_rate,  ///< the difference divided by the inner rate, at the merge's rate times that
};

/// Models are communicated `when`, with `who`, and merged by an outer rule applied to their mean difference.
///
///     d = Σ nᵢ (x̃ − xᵢ) / Σ nᵢ          nᵢ: samples that rank i applied since the last merge
///     x̃ ← how(x̃, d) at `rate`;   xᵢ ← x̃
///
/// With `outer_rate::per_rate` the outer rule gets d / η and steps at `rate` · η, η being the last rate of
/// the round that was not 0: its momentum then has the unit of a gradient and follows the schedule.
///
/// With `descent` at rate 1, the default, x̃ becomes the sample-weighted mean of the models.
///
/// State    x̃, the model at the last merge, and the outer rule's state: the same on all ranks.
/// Master   where a rule keeps a master copy, that is what is communicated and merged.
/// Skips    a rank without samples, or whose model is not finite, weighs nothing and takes the result.
/// Slots    weight slots (moving averages) are averaged with the same weights; moments by `at_merge`.
struct merge {
  any_timing when;
  any_group who;
  any_rule how;
  double rate;
  moments at_merge;
  outer_rate unit;

  merge(any_timing w, any_group o, any_rule h = descent{}, double r = 1, moments m = moments::keep,
        outer_rate u = outer_rate::plain);

  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/merge.ipp>
#endif

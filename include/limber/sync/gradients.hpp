// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The stage before the rule: gradients are communicated, then the rule steps.

#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

namespace limber::sync {

/// Gradients are communicated `when`, with `who`; in between they are accumulated.
///
///     ḡ = Σ bᵢ gᵢ / Σ bᵢ        over all samples of all ranks and calls since the last exchange
///
/// Weight   applied while packing as bᵢ / B_planned, so that 16-bit wires stay in range and equal
///          shares are exact; one multiplication by B_planned / Σ bᵢ follows, in the update itself.
/// Zero     a call or a rank without samples is legal and weighs nothing; if nobody has samples, no
///          update is made.
/// Alone    in a group of one the rule reads the host's gradient where it lies. Nothing is packed or sent,
///          and no memory is kept unless calls are accumulated. A 16-bit wire, logical shards and a
///          collective that sums pieces make other numbers of a gradient, with one worker too.
/// Overlap  a bucket whose tensors are all marked is reduced while backward goes on; marks change no bit.
/// Control  Σ bᵢ, Σ bᵢ‖gᵢ‖² and the non-finite ranks travel in fp64 after the last bucket.
struct gradients {
  any_timing when;
  any_group who;

  gradients(any_timing w, any_group o) : when(w), who(o) {}

  [[nodiscard]] limber::detail::owner<gradient_stage> start(training_context& at) const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/gradients.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Kinds of state: what merging, handing over and saving need to know of a piece, and nothing else.

namespace limber {

/// What a slot of a rule is among workers.
enum class slot {
  moment,  ///< gradient history; the momentum policy of a synchronisation applies to it
  weight,  ///< a copy of the model (fp32 master, moving average); merged as the model is
};

/// How a piece of state relates to the same piece on other ranks.
enum class kept {
  replicated,  ///< the same bits on every rank: one copy is saved, a joiner receives it
  per_rank,    ///< each rank's own: saved per worker, a joiner receives the weighted mean
  round,       ///< each rank's own share of the open round: saved per worker, a joiner starts at zero
  partial,     ///< each rank's own part of a sum: saved per worker, a joiner starts at zero; where the number
               ///< of workers is another, the sum is divided again
};

/// What the host hands over as "the gradient" of its n samples.
enum class gradient_is {
  mean,  ///< (1/n) Σ ∇f, as most frameworks' losses give it
  sum,   ///< Σ ∇f
};

}  // namespace limber

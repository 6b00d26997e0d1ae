// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Push-sum, a strategy and its stage: models and weights are sent in halves along a directed graph.

#include <limber/sync/exchange.hpp>
#include <limber/sync/stage.hpp>

namespace limber::sync {

/// The distance over which messages of round k are sent on the directed exponential graph of `size` ranks:
/// rank i sends to i + 2^(k mod (⌊log₂(size − 1)⌋ + 1)), and receives one. 0 for one rank alone.
[[nodiscard]] int exponential_step(int size, i64 round);

/// Stochastic gradient push (SGP): after every update a worker keeps half of its model and pushes half to the
/// next on a directed exponential graph, with weights that correct for what is under way. With `overlap`,
/// OSGP: messages are taken in so many rounds late, hidden behind computing. Every rank i keeps a pair (xᵢ,
/// wᵢ); the parameters are zᵢ = xᵢ / wᵢ. In round k, after each update:
///
///     xᵢ ← xᵢ + (zᵢ − zᵢ before the update)                   the gradient at z, applied to x
///     (xᵢ, wᵢ) ← (xᵢ, wᵢ) / 2 + (xⱼ, wⱼ) / 2                  j: who sends to i in round k − overlap
///     zᵢ ← xᵢ / wᵢ
///
/// Sums         Σ xᵢ and Σ wᵢ over ranks and messages in flight are changed by updates alone.
/// State        x, w (1 at the start) and the round; between calls, with overlap, less than the sums:
///              finish() receives what is in flight; do so before a checkpoint. `evaluate` shows Σ xᵢ / Σ wᵢ
///              of what ranks hold. History of gradients and moving averages stay each worker's own: an
///              exchange follows every update. A joiner gets the mean x and the mean w.
/// Choices      without overlap every call ends with one message to and from a neighbour; after as many calls
///              as the graph has distances, a power of two of workers agree but for their updates. With
///              overlap a worker waits only for messages that are `overlap` rounds old, and uses each exactly
///              so many rounds later, not sooner, also if it has arrived: the same bits whatever the timing.
///              w is sent in the message of its x. At w = 1, which without overlap it stays, x is z without a
///              rounding, and one worker is the plain rule bit for bit. An update that leaves z not finite is
///              undone. 16-bit parameters without a master round x as well.
/// Deaths       attached to a group of survivors, each continues with its own (x, w): what the dead held and
///              what was in flight is lost, in both alike, so z does not change.
/// Collectives  none while training but those messages: blocking sends in an order that cannot deadlock, or
///              with overlap posts. Needs a `point_to_point` collective or a `mailbox`, and with
///              overlap the latter. Attaching agrees on the round.
/// Errors       std::invalid_argument if overlap is negative, or positive without a `mailbox`.
/// Paper        Assran, Loizou, Ballas and Rabbat, Stochastic Gradient Push for Distributed Deep Learning,
///              ICML 2019, arXiv:1811.10792, Algorithms 1 and 2.
struct push_sum {
  i64 overlap = 0;  ///< τ, rounds

  /// Of a message of round k: tag + k.
  static constexpr i64 tag = i64{0x7073} << 48;
  static constexpr capabilities needs_one_of = can_send_receive | can_post;
  [[nodiscard]] exchange parts() const;
  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

/// The stage after the rule, for an exchange of other parts.
using push_sum_round = push_sum;

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/push_sum.ipp>
#endif

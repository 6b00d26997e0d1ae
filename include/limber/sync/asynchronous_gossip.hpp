// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Gossip without rounds, a strategy and its stage: models are sent by mailbox, and nobody waits.

#include <limber/sync/exchange.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>

#include <cstdint>

namespace limber::sync {

/// Gossiping SGD without rounds: models of random others are averaged in when they arrive, and nobody waits.
///
///     push   every `period` updates a worker posts its model to a random other;
///            at every call x ← (x + Σ xᵣ) / (1 + |R|) over what has arrived since the last
///     pull   every `period` updates a worker requests the model of a random other, which replies at its next
///            call: with equal workers it is there at the next;
///            at every call x ← (x + xⱼ) / 2 with each reply that has arrived since the last
///
/// Call         workers may call step() unequally often; finish() is a call of all, waits until every rank
///              has left, and takes in what is in flight. A worker that is dead or lags delays nobody before:
///              messages to a dead rank are dropped, and one that lags replies late. No request is sent to a
///              rank that has not replied to the last.
/// Order        a call averages after its own update, which is before the next one, so that gradients are
///              taken at the averaged model. A model is always a whole snapshot of one call.
/// Memory       of unread messages of one sender only the newest counts. Until its owner's next call, a
///              mailbox holds whatever was posted to it.
/// State        how often a partner was drawn; models differ between ranks; `evaluate` shows their mean, and
///              serves requests meanwhile. Slots as in `gossip`.
/// Choices      a model that is not finite is not posted, and its worker is set to what it receives. Neither
///              form keeps the mean of the models. One such strategy a communicator: messages carry one tag.
/// Bits         not repeatable on a real clock.
/// Collectives  none while training. Needs a `mailbox`.
/// Errors       std::invalid_argument if `how` is a matching, which ranks cannot agree on without rounds.
/// Paper        Jin, Yuan, Iandola and Keutzer, arXiv:1611.04581, algorithms 3 and 4.
struct asynchronous_gossip {
  any_timing period = 1;              ///< τ, or when else
  gossip_how how = gossip_how::push;  ///< or pull
  std::uint64_t seed = 0;             ///< of who exchanges with whom
  moments at_merge = moments::keep;   ///< history when a model is averaged in: the paper keeps it

  /// Of all messages of this strategy.
  static constexpr i64 tag = i64{0x6753} << 32;
  static constexpr bool lockstep = false;  ///< ranks call step() as often as they like
  static constexpr capabilities needs = can_post;
  [[nodiscard]] exchange parts() const;
  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

/// The stage after the rule, for an exchange of other parts.
using asynchronous_round = asynchronous_gossip;

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/asynchronous_gossip.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The stage after the rule, in gossip without rounds: models are sent by mailbox, and nobody waits.

#include <limber/sync/exchange.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>

#include <cstdint>

namespace limber::sync {

/// Models of random others, averaged in when they arrive.
///
///     push   every `when` a worker posts its model to a random other;
///            at every call x ← (x + Σ xᵣ) / (1 + |R|) over what has arrived since the last
///     pull   every `when` a worker requests the model of a random other, which replies at its next call;
///            at every call x ← (x + xⱼ) / 2 with each reply that has arrived since the last
///
/// Order    a call averages after its own update, which is before the next one, so that gradients are taken
///          at the averaged model. A model is always a whole snapshot of one call.
/// Waiting  nobody waits for anybody while training: messages to a dead rank are dropped, and one that lags
///          replies late. No request is sent to a rank that has not replied to the last. `close`, which all
///          ranks enter, waits until every rank has left: then nothing is in flight any more.
/// Memory   of unread messages of one sender only the newest counts. Until its owner's next call, a mailbox
///          holds whatever was posted to it.
/// State    how often a partner was drawn; models differ between ranks; `evaluate` shows their mean.
/// Choices  a model that is not finite is not posted, and its worker is set to what it receives. Neither form
///          keeps the mean of the models. Not repeatable on a real clock. One such strategy a communicator:
///          messages carry one tag.
/// Errors   std::invalid_argument if `how` is a matching, which ranks cannot agree on without rounds.
struct asynchronous_round {
  any_timing when;
  gossip_how how;
  std::uint64_t seed;
  moments at_merge;

  /// Of all messages of this strategy.
  static constexpr i64 tag = i64{0x6753} << 32;
  static constexpr bool lockstep = false;  ///< ranks call step() as often as they like
  static constexpr capabilities needs = can_post;

  explicit asynchronous_round(any_timing w, gossip_how h = gossip_how::push, std::uint64_t s = 0,
                              moments m = moments::keep);

  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
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

  static constexpr capabilities needs = can_post;
  [[nodiscard]] exchange parts() const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/asynchronous_gossip.ipp>
#endif

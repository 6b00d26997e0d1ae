// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The stage after the rule, in rounds of gossip: models are averaged with those of random others.

#include <limber/sync/exchange.hpp>
#include <limber/sync/gossip_partners.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>

#include <concepts>
#include <cstdint>
#include <utility>

namespace limber::sync {

/// xᵢ ← (xᵢ + Σ xᵣ) / (1 + |R|) every `when`, over the models r ∈ R that are sent to rank i in this round.
///
/// State    the round; models differ between ranks, also after an exchange; `evaluate` shows their mean.
/// Choices  who sends to whom is a function of seed and round alone, so that all ranks know it; all models
/// are
///          those from before the round. In a matching both partners hold the same bits afterwards. A model
///          that is not finite has weight 0: its worker takes the mean of those that it receives.
/// Slots    weight slots (moving averages) are averaged as the model is, gradient history by `at_merge`.
/// Collectives  none but the round's messages, each bucket sent and received blocking, in an order that
///          cannot deadlock (`itinerary`). Needs a `point_to_point` collective. attach() agrees on the round.
struct gossip_round {
  any_timing when;
  gossip_how how;
  std::uint64_t seed;
  moments at_merge;

  explicit gossip_round(any_timing w, gossip_how h = gossip_how::matching, std::uint64_t s = 0,
                        moments m = moments::keep)
      : when(std::move(w)), how(h), seed(s), at_merge(m) {}

  static constexpr capabilities needs = can_send_receive;
  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

/// Gossiping SGD in rounds: every worker steps on its own gradient and averages its model, every `period`
/// calls, with those of random others.
///
/// Choices      `how`: a random matching, in which both partners take the average, keeps the mean of all
///              models; the paper's pull and push do not. All ranks take part in a round; without rounds it
///              is `asynchronous_gossip`. Buffers are averaged by `evaluate` alone, which shows the mean of
///              all models; with a large rate it is better than each of them, and the gap grows with rate ·
///              period.
/// State        history of gradients stays each worker's own unless `at_merge` says otherwise.
/// Collectives  none while training: one message a worker (matching: to and from its partner) every `period`
///              calls. Needs a `point_to_point` collective.
/// Paper        Jin, Yuan, Iandola and Keutzer, How to scale distributed deep learning?, 2016,
///              arXiv:1611.04581; matchings as in Boyd et al., Randomized Gossip Algorithms, 2006.
struct gossip {
  i64 period = 1;                         ///< τ
  gossip_how how = gossip_how::matching;  ///< or pull, push
  std::uint64_t seed = 0;                 ///< of who exchanges with whom
  moments at_merge = moments::keep;       ///< history at an exchange: the paper keeps it

  static constexpr capabilities needs = can_send_receive;
  [[nodiscard]] exchange parts() const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/gossip.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Gossip in rounds, a strategy and its stage; who exchanges with whom: functions the same on every rank.

#include <limber/core/config.hpp>
#include <limber/sync/exchange.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>

#include <cstdint>
#include <vector>

namespace limber::sync {

/// How models meet in gossip: xᵢ ← (xᵢ + Σ xᵣ) / (1 + |R|), over the models r ∈ R that are sent to rank i in
/// this round, all of them from before it.
///
///     matching   a random matching: partners take each other's; keeps the mean of all models
///     pull       everyone takes the model of one random other; several may take the same
///     push       everyone gives its model to one random other, who may get any number, or none
///
/// Pulling and pushing move the mean: by √(0.25 v/p) and √(0.10 v/p) a round, v being the variance of p
/// models.
enum class gossip_how { matching, pull, push };

/// A message between two ranks.
struct crossing {
  int from = 0;
  int to = 0;
  [[nodiscard]] friend bool operator==(crossing, crossing) = default;
};

/// A random number below n, for the `k`th choice of `rank`.
[[nodiscard]] int random_below(int n, int rank, std::uint64_t seed, i64 k) noexcept;

/// A random rank other than `rank`, uniform over those others, for its `k`th choice.
[[nodiscard]] int random_other(int rank, int size, std::uint64_t seed, i64 k);

/// The partners of all ranks in round `round`: a random matching. With an odd number one rank stays alone
/// and is its own partner.
[[nodiscard]] std::vector<int> partners_of(int size, std::uint64_t seed, i64 round);

/// Every message of a round of gossip.
[[nodiscard]] std::vector<crossing> crossings_of(gossip_how how, int size, std::uint64_t seed, i64 round);

/// The messages of `rank` among `all`, in an order in which no ranks wait for each other in a cycle.
///
/// Messages are coloured, each with the lowest colour that neither of its ends has yet, and every rank goes
/// through its own by colour. Of the messages that are still to be made one has the lowest colour, and both
/// its ends are at it: so a round ends also where a send waits for its receiver. It takes as long as its
/// colours, fewer than twice the most messages of one rank.
[[nodiscard]] std::vector<crossing> itinerary(int rank, int size, std::vector<crossing> const& all);

/// Gossiping SGD in rounds: every worker steps on its own gradient and averages its model, every `period`,
/// with those of random others, as `gossip_how` says.
///
/// Choices      after a matching both partners hold the same bits. All ranks take part in a round; without
///              rounds it is `asynchronous_gossip`. Who sends to whom is a function of seed and round alone,
///              so that all ranks know it. A model that is not finite has weight 0: its worker takes the mean
///              of those that it receives.
/// State        the round; models differ between ranks, also after an exchange. `evaluate` alone averages
///              buffers, and shows the mean of all models; with a large rate it is better than each of them,
///              and the gap grows with rate · period.
/// Slots        weight slots (moving averages) are averaged as the model is; history of gradients stays each
///              worker's own unless `at_merge` says otherwise.
/// Collectives  none while training but the round's messages, one a worker (matching: to and from its
///              partner): each bucket sent and received blocking, in an order that cannot deadlock
///              (`itinerary`). Needs a `point_to_point` collective. attach() agrees on the round.
/// Paper        Jin, Yuan, Iandola and Keutzer, How to scale distributed deep learning?, 2016,
///              arXiv:1611.04581; matchings as in Boyd et al., Randomized Gossip Algorithms, 2006.
struct gossip {
  any_timing period = 1;                  ///< τ, or when else
  gossip_how how = gossip_how::matching;  ///< or pull, push
  std::uint64_t seed = 0;                 ///< of who exchanges with whom
  moments at_merge = moments::keep;       ///< history at an exchange: the paper keeps it

  static constexpr capabilities needs = can_send_receive;
  [[nodiscard]] exchange parts() const;
  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

/// The stage after the rule, for an exchange of other parts.
using gossip_round = gossip;

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/gossip.ipp>
#endif

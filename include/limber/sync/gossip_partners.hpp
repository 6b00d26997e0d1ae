// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Who exchanges with whom in a round of gossip: pure functions, the same on every rank.

#include <limber/core/config.hpp>

#include <cstdint>
#include <vector>

namespace limber::sync {

/// How models meet in gossip: x ← (x + Σ received) / (1 + received), over models from before the round.
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

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/gossip_partners.ipp>
#endif

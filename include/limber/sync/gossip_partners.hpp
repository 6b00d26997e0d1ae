// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Who exchanges with whom in a round of gossip: pure functions, the same on every rank.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/random.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
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
[[nodiscard]] inline int random_below(int n, int rank, std::uint64_t seed, i64 k) noexcept {
  std::uint64_t const bits =
      random_bits(seed, static_cast<std::uint64_t>(k), static_cast<std::uint64_t>(rank)) >> 32;
  return static_cast<int>((bits * static_cast<std::uint64_t>(n)) >> 32);
}

/// A random rank other than `rank`, uniform over those others, for its `k`th choice.
[[nodiscard]] inline int random_other(int rank, int size, std::uint64_t seed, i64 k) {
  expects(size >= 2, "random_other: rank ", rank, " of ", size, " has no others");
  int const other = random_below(size - 1, rank, seed, k);
  return other < rank ? other : other + 1;
}

/// The partners of all ranks in round `round`: a random matching. With an odd number one rank stays alone
/// and is its own partner.
[[nodiscard]] inline std::vector<int> partners_of(int size, std::uint64_t seed, i64 round) {
  std::vector<std::pair<std::uint64_t, int>> order;
  for (int r = 0; r < size; ++r)
    order.emplace_back(random_bits(seed, static_cast<std::uint64_t>(round), static_cast<std::uint64_t>(r)),
                       r);
  std::ranges::sort(order);
  std::vector<int> out(order.size());
  for (std::size_t k = 0; k < order.size(); ++k)
    out[static_cast<std::size_t>(order[k].second)] = order[(k ^ 1) < order.size() ? k ^ 1 : k].second;
  return out;
}
[[nodiscard]] inline int partner_of(int rank, int size, std::uint64_t seed, i64 round) {
  return partners_of(size, seed, round)[static_cast<std::size_t>(rank)];
}

/// Every message of a round of gossip.
[[nodiscard]] inline std::vector<crossing> crossings_of(gossip_how how, int size, std::uint64_t seed,
                                                        i64 round) {
  std::vector<crossing> out;
  if (size < 2) return out;
  if (how == gossip_how::matching) {
    auto const partner = partners_of(size, seed, round);
    for (int r = 0; r < size; ++r)
      if (partner[static_cast<std::size_t>(r)] != r) out.push_back({r, partner[static_cast<std::size_t>(r)]});
    return out;
  }
  for (int r = 0; r < size; ++r) {
    int const other = random_other(r, size, seed, round);
    out.push_back(how == gossip_how::pull ? crossing{other, r} : crossing{r, other});
  }
  return out;
}

/// The messages of `rank` among `all`, in an order in which nobody waits in a circle.
///
/// Messages are coloured, each with the lowest colour that neither of its ends has yet, and every rank goes
/// through its own by colour. Of the messages that are still to be made one has the lowest colour, and both
/// its ends are at it: so a round ends also where a send waits for its receiver. It takes as long as its
/// colours, fewer than twice the most messages of one rank.
[[nodiscard]] inline std::vector<crossing> itinerary(int rank, int size, std::vector<crossing> const& all) {
  std::vector<std::size_t> degree(static_cast<std::size_t>(size));
  std::size_t most = 0;
  for (auto const& m : all)
    for (int const end : {m.from, m.to}) most = std::max(most, ++degree[static_cast<std::size_t>(end)]);
  std::size_t const colours = 2 * most;
  std::vector<char> used(degree.size() * colours);
  std::vector<std::pair<std::size_t, crossing>> own;
  for (auto const& m : all) {
    char* const from = used.data() + static_cast<std::size_t>(m.from) * colours;
    char* const to = used.data() + static_cast<std::size_t>(m.to) * colours;
    std::size_t c = 0;
    while (from[c] != 0 || to[c] != 0) ++c;
    from[c] = to[c] = 1;
    if (m.from == rank || m.to == rank) own.emplace_back(c, m);
  }
  std::ranges::sort(own, {}, &std::pair<std::size_t, crossing>::first);
  std::vector<crossing> out;
  for (auto const& [c, m] : own) out.push_back(m);
  return out;
}

/// One number per rank after a round in exact arithmetic: what a round does to every element of the models.
[[nodiscard]] inline std::vector<double> mixed(std::span<double const> x,
                                               std::vector<crossing> const& round) {
  std::vector<double> sum(x.begin(), x.end());
  std::vector<int> parts(x.size(), 1);
  for (auto const& m : round) {
    sum[static_cast<std::size_t>(m.to)] += x[static_cast<std::size_t>(m.from)];
    ++parts[static_cast<std::size_t>(m.to)];
  }
  for (std::size_t r = 0; r < sum.size(); ++r) sum[r] /= parts[r];
  return sum;
}

/// Mean of one number per rank, and the mean square of the distances from it.
struct consensus {
  double mean = 0;
  double variance = 0;
};

[[nodiscard]] inline consensus consensus_of(std::span<double const> x) {
  consensus c;
  auto const n = static_cast<double>(x.size());
  for (double const v : x) c.mean += v / n;
  for (double const v : x) c.variance += (v - c.mean) * (v - c.mean) / n;
  return c;
}

}  // namespace limber::sync

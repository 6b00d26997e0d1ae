// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The cost of messages and collective operations on modelled links.

#include <limber/comm/detail/signature.hpp>

#include <bit>
#include <cstdint>
#include <limits>

namespace limber::sim {

inline constexpr double infinite = std::numeric_limits<double>::infinity();

/// A message of n bytes takes α + n/β.
struct link {
  double latency = 0;           ///< α, seconds a message, ≥ 0
  double bandwidth = infinite;  ///< β, bytes a second, > 0
};

/// The algorithm of an all-reduce.
enum class topology : std::uint8_t {
  ring,   ///< reduce-scatter and all-gather around a ring: bound by bandwidth
  tree,   ///< up a binary tree and down again: bound by latency
  server  ///< all ranks send to one and get the sum back, through its one link
};

/// α + n/β.
[[nodiscard]] inline double message_seconds(link const& over, double bytes) noexcept {
  return over.latency + bytes / over.bandwidth;
}

/// ⌈log₂ p⌉, the depth of a binary tree.
[[nodiscard]] inline int tree_depth(int ranks) noexcept {
  return ranks <= 1 ? 0 : static_cast<int>(std::bit_width(static_cast<unsigned>(ranks) - 1));
}

/// Seconds of an all-reduce of n bytes among p ranks, from the arrival of the last rank.
///
///     ring    2 (p − 1) (α + n / (p β))
///     tree    2 ⌈log₂ p⌉ (α + n / β)
///     server  2 α + 2 p n / β             p messages through one link, in and out
///
/// 0 for a single rank.
[[nodiscard]] inline double all_reduce_seconds(topology how, link const& over, double bytes,
                                               int ranks) noexcept {
  if (ranks <= 1) return 0;
  double const p = ranks;
  switch (how) {
    case topology::ring: return 2 * (p - 1) * message_seconds(over, bytes / p);
    case topology::tree: return 2 * tree_depth(ranks) * message_seconds(over, bytes);
    case topology::server: return 2 * over.latency + 2 * p * bytes / over.bandwidth;
  }
  return 0;
}

/// Half a ring: (p − 1) (α + n / (p β)) for n bytes of all blocks together. Also of reduce_scatter.
[[nodiscard]] inline double all_gather_seconds(link const& over, double bytes, int ranks) noexcept {
  return ranks <= 1 ? 0 : (ranks - 1) * message_seconds(over, bytes / ranks);
}

/// Down a binary tree: ⌈log₂ p⌉ (α + n / β). Also of a barrier, where n is 0.
[[nodiscard]] inline double broadcast_seconds(link const& over, double bytes, int ranks) noexcept {
  return tree_depth(ranks) * message_seconds(over, bytes);
}

/// The duration and traffic of one operation.
struct operation_cost {
  double seconds = 0;
  double bytes = 0;  ///< that a rank sends, averaged over the ranks
};

/// The cost of a collective call of p ranks; every byte counts `scale` times.
///
/// Bytes    an all-reduce sends 2 (p − 1)/p n bytes a rank over a ring or tree and 2 n through a server;
///          the others (p − 1)/p n.
/// Choices  split, like everything else that makes a group, costs a barrier.
[[nodiscard]] inline operation_cost cost_of(limber::detail::signature const& s, topology how,
                                            link const& over, int ranks, double scale) noexcept {
  using limber::detail::operation;
  if (ranks <= 1) return {};
  double const n = static_cast<double>(s.count) * static_cast<double>(size_of(s.type)) * scale;
  double const part = (ranks - 1.0) / ranks;
  switch (s.what) {
    case operation::all_reduce:
      return {all_reduce_seconds(how, over, n, ranks), 2 * n * (how == topology::server ? 1 : part)};
    case operation::reduce_scatter:
    case operation::all_gather: return {all_gather_seconds(over, n * ranks, ranks), part * n * ranks};
    case operation::broadcast: return {broadcast_seconds(over, n, ranks), part * n};
    case operation::barrier:
    case operation::split: return {broadcast_seconds(over, 0, ranks), 0};
  }
  return {};
}

}  // namespace limber::sim

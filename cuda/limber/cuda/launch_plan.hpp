// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How a list of tensors is cut into the work of warps, and how the norms of the pieces come together.

#include <limber/core/error.hpp>
#include <limber/core/norm.hpp>
#include <limber/core/tensor.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace limber::gpu {

/// At most so many elements lie before the first position where all operands are aligned to 16 bytes.
inline constexpr int max_phase = 7;

/// Up to 4,096 elements of one tensor; what one warp works on. An empty tensor has one, for its norm.
struct alignas(16) leaf {
  std::int32_t number;  ///< place in its tensor
  std::int32_t left;    ///< elements from its start to the tensor's end, at most leaf_size + max_phase + 1
  std::int32_t tensor;
  std::int32_t node;  ///< where its sum of squares is awaited
};

/// A place where up to 256 sums are added by pairs, bottom up: the tree of `tree_sum`.
struct alignas(16) node {
  std::int32_t first;     ///< slot of its first child; the others follow
  std::int32_t children;  ///< ≥ 1
  std::int32_t parent;    ///< −1: none
  std::int32_t tensor;    ///< whose norm it completes, −1: nobody's; the total is that of number `tensors`
};
inline constexpr int node_children = 256;

/// A stretch of a tensor that one warp works on: whole groups of elements, and stray ones before it.
struct window {
  i64 begin;
  int count;
  int head;  ///< elements [0, head) of the tensor belong to this window too
};

/// Part `part` of 2^log_parts of a leaf, where the first `phase` elements of the tensor are not aligned.
///
/// All windows of a tensor are shifted by `phase`; its first window takes what lies before. So every
/// element is in exactly one window, and every window starts where all operands are aligned.
[[nodiscard]] LIMBER_HD inline window window_of(leaf const& l, int part, int log_parts, int phase) noexcept {
  int const size = static_cast<int>(leaf_size) >> log_parts;
  int const offset = phase + part * size;
  int const left = l.left - offset;
  int const head = l.number == 0 && part == 0 ? (phase < l.left ? phase : l.left) : 0;
  return {l.number * leaf_size + offset, left < 0 ? 0 : left < size ? left : size, head};
}

/// The tables of a launch; they depend on lengths and on which tensors are computed in double alone.
///
/// Slots hold sums of squares: slot k is leaf k's for k < leaves.size(), node k − leaves.size()'s from
/// there on. Nodes: one for each tensor, in order, then the inner ones of large tensors, then those over
/// the tensors, by levels; the last is the total.
struct launch_plan {
  std::vector<leaf> leaves;  ///< those of float tensors first
  std::vector<node> nodes;
  i64 tensors = 0;
  i64 narrow_leaves = 0;  ///< so many of them are computed in float
  i64 narrow_elements = 0;
  i64 wide_elements = 0;
  i64 first_over_tensors = 0;  ///< nodes from here on are over tensors
  i64 level_over_tensors = 0;  ///< so many of them have tensors as children

  [[nodiscard]] i64 wide_leaves() const noexcept { return static_cast<i64>(leaves.size()) - narrow_leaves; }
  [[nodiscard]] i64 slots() const noexcept { return static_cast<i64>(leaves.size() + nodes.size()); }

  /// The parts to cut each leaf into so that `elements`' worth of leaves occupy `warps` warps: 2^result.
  [[nodiscard]] static int log_parts(i64 leaves, i64 warps) noexcept {
    int log = 0;
    while (log < 4 && (leaves << log) < warps) ++log;
    return log;
  }
};

namespace detail {

// Nodes over `count` children from slot `first`, by levels, until one is left: nodes[root], or a new one
// if root is −1.
// Children get their parent through `adopt(child, node)`.
template <class Adopt>
void grow_tree(launch_plan& plan, i64 first, i64 count, std::int32_t root, Adopt const& adopt) {
  auto const slot_of = [&](std::size_t n) { return static_cast<i64>(plan.leaves.size() + n); };
  i64 child_node = -1;  // of the first child, when children are nodes
  for (bool last = false; !last;) {
    i64 const many = std::max<i64>(1, (count + node_children - 1) / node_children);
    last = many == 1;
    auto const base = last && root >= 0 ? static_cast<std::size_t>(root) : plan.nodes.size();
    for (i64 k = 0; k < many; ++k) {
      auto const at = base + static_cast<std::size_t>(k);
      i64 const here = std::min<i64>(node_children, count - k * node_children);
      auto const where = static_cast<std::int32_t>(first + k * node_children);
      if (at == plan.nodes.size()) plan.nodes.push_back({0, 0, -1, -1});
      plan.nodes[at].first = where;
      plan.nodes[at].children = static_cast<std::int32_t>(here);
      for (i64 c = 0; c < here; ++c) {
        i64 const child = k * node_children + c;
        if (child_node < 0)
          adopt(child, static_cast<std::int32_t>(at));
        else
          plan.nodes[static_cast<std::size_t>(child_node + child)].parent = static_cast<std::int32_t>(at);
      }
    }
    child_node = static_cast<i64>(base);
    first = slot_of(base);
    count = many;
  }
}

}  // namespace detail

/// The plan for tensors of these lengths. @param wide  per tensor: computed in double
/// @throws std::invalid_argument for more than 2³¹ leaves (8 · 10¹² elements)
[[nodiscard]] inline launch_plan make_plan(std::vector<i64> const& lengths, std::vector<char> const& wide) {
  launch_plan plan;
  plan.tensors = static_cast<i64>(lengths.size());
  auto const leaves_of = [](i64 n) { return std::max<i64>(1, (n + leaf_size - 1) / leaf_size); };
  i64 total = 0;
  for (i64 n : lengths) total += leaves_of(n);
  expects(2 * (total + plan.tensors) < std::numeric_limits<std::int32_t>::max(), "executor: a list of ",
          total, " leaves of ", leaf_size, " elements is too long");
  plan.leaves.reserve(static_cast<std::size_t>(total));
  std::vector<i64> first(lengths.size());
  for (char kind : {char{0}, char{1}}) {
    for (std::size_t t = 0; t < lengths.size(); ++t) {
      if ((wide[t] != 0) != (kind != 0)) continue;
      first[t] = static_cast<i64>(plan.leaves.size());
      (kind != 0 ? plan.wide_elements : plan.narrow_elements) += lengths[t];
      for (i64 k = 0; k < leaves_of(lengths[t]); ++k)
        plan.leaves.push_back(
            {static_cast<std::int32_t>(k),
             static_cast<std::int32_t>(std::min<i64>(lengths[t] - k * leaf_size, leaf_size + max_phase + 1)),
             static_cast<std::int32_t>(t), -1});
    }
    if (kind == 0) plan.narrow_leaves = static_cast<i64>(plan.leaves.size());
  }
  for (std::size_t t = 0; t < lengths.size(); ++t)
    plan.nodes.push_back({0, 0, -1, static_cast<std::int32_t>(t)});
  for (std::size_t t = 0; t < lengths.size(); ++t)
    detail::grow_tree(plan, first[t], leaves_of(lengths[t]), static_cast<std::int32_t>(t),
                      [&](i64 child, std::int32_t at) {
                        plan.leaves[static_cast<std::size_t>(first[t] + child)].node = at;
                      });
  plan.first_over_tensors = static_cast<i64>(plan.nodes.size());
  if (plan.tensors == 0) return plan;
  plan.level_over_tensors = (plan.tensors + node_children - 1) / node_children;
  detail::grow_tree(
      plan, static_cast<i64>(plan.leaves.size()), plan.tensors, -1,
      [&](i64 child, std::int32_t at) { plan.nodes[static_cast<std::size_t>(child)].parent = at; });
  plan.nodes.back().tensor = static_cast<std::int32_t>(plan.tensors);
  return plan;
}

}  // namespace limber::gpu

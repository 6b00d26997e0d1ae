// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// From sums over leaves to norms, in the launch that made them: whoever is last goes on.

#include <limber/core/norm.hpp>
#include <limber/cuda/launch_plan.hpp>
#include <limber/cuda/storage.hpp>
#include <limber/cuda/unroll.hpp>
#include <limber/cuda/warp.hpp>
#include <limber/fuse/norm_report.hpp>

#include <cstdint>
#include <type_traits>

namespace limber::gpu {

/// Working memory of a plan's norms and where they go; all of it on the executor's side.
struct norm_tables {
  node const* nodes = nullptr;
  unsigned* counters = nullptr;               ///< one per node, zero before and after a launch
  square_sum<float>* narrow_slots = nullptr;  ///< for each sum: the plan's slots
  square_sum<double>* wide_slots =
      nullptr;  ///< null unless tensors of f64 are there: then totals are in double
  i64 slots = 0;
  i64 leaves = 0;
  i64 tensors = 0;
  int sums = 1;                          ///< so many the norms have room for
  tensor_norm<float>* narrow = nullptr;  ///< as in norm_memory
  tensor_norm<double>* wide = nullptr;

  template <class T>
  [[nodiscard]] LIMBER_HD square_sum<T>* slots_of() const noexcept {
    if constexpr (std::is_same_v<T, double>)
      return wide_slots;
    else
      return narrow_slots;
  }
};

/// One sum, or two, of the same elements.
template <class T, int Sums>
struct sums {
  square_sum<T> of[Sums];
};

namespace detail {

template <class T, int Sums>
[[nodiscard]] LIMBER_HD inline sums<T, Sums> add_all(sums<T, Sums> a, sums<T, Sums> const& b) noexcept {
  LIMBER_DETAIL_UNROLL
  for (int k = 0; k < Sums; ++k) a.of[k] = add(a.of[k], b.of[k]);
  return a;
}

/// The bits of double(x), by integers: a float kernel that keeps away from double arithmetic.
[[nodiscard]] LIMBER_HD inline std::uint64_t widened_bits(float x) noexcept {
  auto const u = bits_as<std::uint32_t>(x);
  std::uint64_t const sign = static_cast<std::uint64_t>(u >> 31) << 63;
  std::uint32_t magnitude = u & 0x7fff'ffffu;
  if (magnitude == 0) return sign;
  if (magnitude >= 0x7f80'0000u)
    return sign | 0x7ff0'0000'0000'0000u | (std::uint64_t{magnitude & 0x7f'ffffu} << 29);
  std::uint64_t exponent = 1023 - 127;
  if (magnitude < 0x0080'0000u) {  // subnormal: all of them are normal in double
    for (++exponent; magnitude < 0x0080'0000u; magnitude *= 2) --exponent;
    magnitude -= 0x0080'0000u;
  }
  return sign | ((exponent << 52) + (std::uint64_t{magnitude} << 29));
}

[[nodiscard]] LIMBER_HD inline square_sum<double> widened(square_sum<float> q) noexcept {
  return {bits_as<double>(widened_bits(q.s)), q.e};
}

/// Writes sum number `which` of tensor t (or of all: t = tensors) to the norms.
template <class T>
LIMBER_HD inline void write_norm(norm_tables const& to, i64 t, int which, square_sum<T> s) noexcept {
  i64 const at = which * (to.tensors + 1) + t;
  T const root = root_of(s);
  if constexpr (std::is_same_v<T, double>) {
    to.wide[at] = {s, root};
    if (t == to.tensors) to.narrow[at] = {{math::convert<float>(s.s), s.e}, math::convert<float>(root)};
  } else {
    to.narrow[at] = {s, root};
  }
}

}  // namespace detail

/// Hands `own`, which lane 0 holds for slot `slot`, to node `at`; if the node is complete by that, adds
/// its children in order and goes on to its parent.
///
/// Order    a node's children are added by neighbouring pairs, bottom up, whoever adds them: `tree_sum`.
/// Choices  with tensors of f64, ways end at the tensors' own nodes; `total_body` does the rest in double.
template <class T, int Sums, class W>
LIMBER_DETAIL_INLINE void complete(W const& w, norm_tables const& to,
                                   typename W::template per_lane<sums<T, Sums>>& own, i64 slot,
                                   std::int32_t at) {
  using mine = sums<T, Sums>;
  auto const add_two = [](mine a, mine const& b) { return detail::add_all(a, b); };
  square_sum<T>* const slots = to.slots_of<T>();
  while (at >= 0) {
    node const n = to.nodes[at];
    if (n.children > 1) {
      typename W::template per_lane<int> last{};
      w.for_lanes([&](int lane) {
        if (lane != 0) return;
        LIMBER_DETAIL_UNROLL
        for (int k = 0; k < Sums; ++k) slots[k * to.slots + slot] = W::own(own, 0).of[k];
        bool const complete = w.count_up(to.counters + at) == static_cast<unsigned>(n.children - 1);
        if (complete) to.counters[at] = 0;
        W::own(last, 0) = complete;
      });
      if (w.broadcast(last, 0) == 0) return;
      w.acquire();
      w.for_lanes([&](int lane) {
        constexpr int share = node_children / warp_lanes;
        LIMBER_DETAIL_UNROLL
        for (int k = 0; k < Sums; ++k) {
          square_sum<T> c[share];
          LIMBER_DETAIL_UNROLL
          for (int i = 0; i < share; ++i)
            if (lane * share + i < n.children)
              c[i] = w.fresh(slots + k * to.slots + n.first + lane * share + i);
          LIMBER_DETAIL_UNROLL
          for (int d = 1; d < share; d *= 2) LIMBER_DETAIL_UNROLL
          for (int i = 0; i < share; i += 2 * d) c[i] = add(c[i], c[i + d]);
          W::own(own, lane).of[k] = c[0];
        }
      });
      for (int d = 1; d < warp_lanes; d *= 2) w.fold(own, d, add_two);
    }
    slot = to.leaves + at;
    w.for_lanes([&](int lane) {
      if (lane != 0 || n.tensor < 0) return;
      LIMBER_DETAIL_UNROLL
      for (int k = 0; k < Sums; ++k) {
        square_sum<T> const s = W::own(own, 0).of[k];
        if (k < to.sums) detail::write_norm(to, n.tensor, k, s);
        if (to.wide_slots == nullptr || n.tensor == to.tensors) continue;
        if constexpr (std::is_same_v<T, double>)
          to.wide_slots[k * to.slots + slot] = s;
        else
          to.wide_slots[k * to.slots + slot] = detail::widened(s);
      }
    });
    if (n.tensor >= 0 && to.wide_slots != nullptr) return;
    at = n.parent;
  }
}

/// Adds the tensors' sums in double, where some are of f64; an item is a node that has tensors as children.
template <int Sums>
struct total_body {
  static constexpr char const* name = "limber total";

  norm_tables to;
  i64 first_node;

  template <class W>
  LIMBER_DETAIL_INLINE void operator()(W const& w, i64 item) const {
    node const n = to.nodes[first_node + item];
    typename W::template per_lane<sums<double, Sums>> own{};
    // The children are there already: the first one counts up for the others.
    w.for_lanes([&](int lane) {
      if (lane != 0) return;
      LIMBER_DETAIL_UNROLL
      for (int k = 0; k < Sums; ++k) W::own(own, 0).of[k] = to.wide_slots[k * to.slots + n.first];
      if (n.children > 1) to.counters[first_node + item] = static_cast<unsigned>(n.children - 1);
    });
    complete<double, Sums>(w, to, own, n.first, static_cast<std::int32_t>(first_node + item));
  }
};

}  // namespace limber::gpu

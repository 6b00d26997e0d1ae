// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The kernel bodies of `each` and `run`.

#include <limber/cuda/launch_plan.hpp>
#include <limber/cuda/tensor_operands.hpp>
#include <limber/cuda/unroll.hpp>
#include <limber/cuda/warp.hpp>

namespace limber::gpu {

/// f(x…) for every element of the tensors that are computed in T; an item is a part of a leaf.
template <class T, class F, access_mode... A>
struct each_body {
  static constexpr char const* name = "limber each";
  // Doubles need more registers than two blocks leave.
  static constexpr int blocks_at_once = sizeof(T) == 4 ? 2 : 1;

  F f;
  operand_binding list[sizeof...(A)];
  leaf const* leaves;  ///< the first of those computed in T
  int log_parts;

  LIMBER_NO_EXEC_CHECK
  template <class W>
  LIMBER_DETAIL_INLINE void operator()(W const& w, i64 item) const {
    leaf const l = leaves[item >> log_parts];
    if (l.left <= 0) return;
    tensor_operands<T, A...> const x(list, l.tensor, true);
    auto const here =
        window_of(l, static_cast<int>(item & ((i64{1} << log_parts) - 1)), log_parts, x.phase());
    auto const drop = [](int, int, auto const&) {};
    if constexpr (requires { f.otherwise(); })
      if (skips(f)) {  // rare: one by one will do
        w.for_lanes([&](int lane) {
          for (int i = lane; i < here.head + here.count; i += warp_lanes)
            x.one(f.otherwise(), i < here.head ? i : here.begin + (i - here.head), [](auto const&) {});
        });
        return;
      }
    auto&& g = functor_of<T>(f, l.tensor);
    // Two groups of four and one of eight are the same eight elements in flight.
    int const in_group = x.way() == path::direct ? 4 : 8;
    int const groups = here.count / in_group;
    w.for_lanes([&](int lane) {
      if (x.way() == path::direct) {
        for (int first = lane; first < groups; first += 2 * warp_lanes)
          x.template groups<path::direct, 4, 2>(g, here.begin, first, groups, drop);
      } else if (x.way() == path::aligned) {
        for (int first = lane; first < groups; first += warp_lanes)
          x.template groups<path::aligned, 8, 1>(g, here.begin, first, groups, drop);
      } else {
        for (int first = lane; first < groups; first += warp_lanes)
          x.template groups<path::any, 8, 1>(g, here.begin, first, groups, drop);
      }
      // What lies before the first group and after the last: fewer than 16 elements.
      int const rest = here.count - groups * in_group;
      if (lane < here.head + rest)
        x.one(g, lane < here.head ? lane : here.begin + groups * in_group + (lane - here.head),
              [](auto const&) {});
    });
  }
};

/// f(i) for i in [0, n); an item is 32 of them.
template <class F>
struct run_body {
  static constexpr char const* name = "limber run";

  F f;
  i64 n;

  LIMBER_NO_EXEC_CHECK
  template <class W>
  LIMBER_DETAIL_INLINE void operator()(W const& w, i64 item) const {
    w.for_lanes([&](int lane) {
      i64 const i = item * warp_lanes + lane;
      if (i < n) f(i);
    });
  }
};

}  // namespace limber::gpu

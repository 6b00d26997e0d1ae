// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The kernel body of `measure`: f for every element, and sums of the squares of what it returns.

#include <limber/cuda/completion.hpp>
#include <limber/cuda/tensor_operands.hpp>
#include <limber/cuda/unroll.hpp>

namespace limber::gpu {

/// Eight of a leaf's 256 columns, in the hands of one lane.
template <class T, int Sums>
struct lane_columns {
  square_column<T> of[Sums][8];

  /// What square_column::add does, adding zero twice: a choice among sums would take them out of registers.
  LIMBER_DETAIL_INLINE void add(int s, int k, T v) noexcept {
    using column = square_column<T>;
    column& c = of[s][k];
    bool const ordinary = column::is_ordinary(v);
    bool const large =
        !ordinary && math::magnitude_bits(v) >= math::magnitude_bits(math::power_of_two<T>(column::limit));
    T const in_large = large ? math::mul(v, math::power_of_two<T>(-column::shift)) : T(0);
    T const in_tiny = ordinary || large ? T(0) : math::mul(v, math::power_of_two<T>(column::shift));
    T const as_it_is = ordinary ? v : T(0);
    c.ordinary = math::fma(as_it_is, as_it_is, c.ordinary);
    c.large = math::fma(in_large, in_large, c.large);
    c.tiny = math::fma(in_tiny, in_tiny, c.tiny);
  }

  /// Adds one row's eight values; a row of ordinary ones takes the short way.
  LIMBER_DETAIL_INLINE void add_row(T const (&y)[Sums][8]) noexcept {
    LIMBER_DETAIL_UNROLL
    for (int s = 0; s < Sums; ++s) {
      bool ordinary = true;
      LIMBER_DETAIL_UNROLL
      for (int k = 0; k < 8; ++k) ordinary = ordinary && square_column<T>::is_ordinary(y[s][k]);
      if (ordinary) {
        LIMBER_DETAIL_UNROLL
        for (int k = 0; k < 8; ++k) of[s][k].ordinary = math::fma(y[s][k], y[s][k], of[s][k].ordinary);
      } else {
        LIMBER_DETAIL_UNROLL
        for (int k = 0; k < 8; ++k) add(s, k, y[s][k]);
      }
    }
  }
};

namespace detail {

template <class T, class Y, int Sums, int N>
LIMBER_HD inline void put_result(T (&y)[Sums][N], int at, Y const& value) noexcept {
  if constexpr (Sums == 2) {
    y[0][at] = value.first;
    y[1][at] = value.second;
  } else {
    y[0][at] = value;
  }
}

/// The three sums of all 256 columns, for lane 0: `column_tree` of each.
///
/// @tparam W  group size: lane l holds columns 8 l + k (8), or 4 l + k and 128 + 4 l + k (4), k < W
template <int W, class T, int Sums, class Warp>
LIMBER_DETAIL_INLINE void add_columns(Warp const& w,
                                      typename Warp::template per_lane<lane_columns<T, Sums>>& columns) {
  using mine = lane_columns<T, Sums>;
  using column = square_column<T>;
  auto const plus = [](column a, column const& b) {
    return column{math::add(a.ordinary, b.ordinary), math::add(a.large, b.large), math::add(a.tiny, b.tiny)};
  };
  // Inside the eights: k takes k + 4, then k + 2, then k + 1.
  if constexpr (W == 4) {
    LIMBER_DETAIL_UNROLL
    for (int s = 0; s < Sums; ++s) LIMBER_DETAIL_UNROLL
    for (int k = 0; k < 8; ++k) {
      typename Warp::template per_lane<column> c{};
      w.for_lanes([&](int lane) { Warp::own(c, lane) = Warp::own(columns, lane).of[s][k]; });
      w.fold(c, 1, plus);
      w.for_lanes([&](int lane) { Warp::own(columns, lane).of[s][k] = Warp::own(c, lane); });
    }
  }
  w.for_lanes([&](int lane) {
    mine& c = Warp::own(columns, lane);
    LIMBER_DETAIL_UNROLL
    for (int s = 0; s < Sums; ++s) {
      if constexpr (W == 8) LIMBER_DETAIL_UNROLL
      for (int k = 0; k < 4; ++k) c.of[s][k] = plus(c.of[s][k], c.of[s][k + 4]);
      LIMBER_DETAIL_UNROLL
      for (int half = 0; half < 8; half += W == 8 ? 8 : 4) {
        c.of[s][half] = plus(c.of[s][half], c.of[s][half + 2]);
        c.of[s][half + 1] = plus(c.of[s][half + 1], c.of[s][half + 3]);
        c.of[s][half] = plus(c.of[s][half], c.of[s][half + 1]);
      }
      // Eight e + 16 is on the lane of eight e.
      if constexpr (W == 4) c.of[s][0] = plus(c.of[s][0], c.of[s][4]);
    }
  });
}

}  // namespace detail

/// Norms over the tensors that are computed in T; an item is a leaf.
template <class T, int Sums, class F, access_mode... A>
struct norm_body {
  static constexpr char const* name = "limber measure";

  F f;
  operand_binding list[sizeof...(A)];
  leaf const* leaves;  ///< the first of those computed in T
  i64 first_leaf;      ///< its number
  norm_tables to;

  LIMBER_NO_EXEC_CHECK
  template <class W>
  LIMBER_DETAIL_INLINE void operator()(W const& w, i64 item) const {
    leaf const l = leaves[item];
    typename W::template per_lane<sums<T, Sums>> sum{};
    if (l.left > 0 && !skips(f)) {
      tensor_operands<T, A...> const x(list, l.tensor, false);
      if (x.way() == path::direct)
        add_leaf<4>(w, l, x, sum);
      else
        add_leaf<8>(w, l, x, sum);
    }
    complete<T, Sums>(w, to, sum, first_leaf + item, l.node);
  }

 private:
  LIMBER_NO_EXEC_CHECK
  template <int Group, class W>
  LIMBER_DETAIL_INLINE void add_leaf(W const& w, leaf const& l, tensor_operands<T, A...> const& x,
                                     typename W::template per_lane<sums<T, Sums>>& sum) const {
    auto&& g = functor_of<T>(f, l.tensor);
    auto const here = window_of(l, 0, 0, 0);
    int const groups = here.count / Group;
    typename W::template per_lane<lane_columns<T, Sums>> columns{};
    typename W::template per_lane<sums_of_one> stray{};
    w.for_lanes([&](int lane) {
      if constexpr (Group == 4)
        add_rows<path::direct, Group>(g, x, here.begin, lane, groups, W::own(columns, lane));
      else if (x.way() == path::aligned)
        add_rows<path::aligned, Group>(g, x, here.begin, lane, groups, W::own(columns, lane));
      else
        add_rows<path::any, Group>(g, x, here.begin, lane, groups, W::own(columns, lane));
      int const at = groups * Group + lane;
      if (at < here.count)
        x.one(g, here.begin + at,
              [&](auto const& value) { detail::put_result(W::own(stray, lane).y, 0, value); });
    });
    // The last few elements, each computed by a lane of its own, go to the columns where they belong.
    int const rest = here.count - groups * Group;
    int const row_group = groups % (leaf_columns / Group), half = row_group / warp_lanes;
    typename W::template per_lane<row> last{};
    for (int i = 0; i < rest; ++i) {
      auto const value = w.broadcast(stray, i);
      w.for_lanes([&](int lane) {
        bool const mine = lane == row_group % warp_lanes;
        LIMBER_DETAIL_UNROLL
        for (int s = 0; s < Sums; ++s) LIMBER_DETAIL_UNROLL
        for (int k = 0; k < 8; ++k) {
          T& y = W::own(last, lane).y[s][k];
          y = mine && k == half * Group + i ? value.y[s][0] : y;
        }
      });
    }
    w.for_lanes([&](int lane) { W::own(columns, lane).add_row(W::own(last, lane).y); });
    detail::add_columns<Group, T, Sums>(w, columns);
    finish<Group>(w, columns, sum);
  }

  template <path Way, int Group, class G>
  LIMBER_DETAIL_INLINE static void add_rows(G const& g, tensor_operands<T, A...> const& x, i64 begin,
                                            int lane, int groups, lane_columns<T, Sums>& columns) {
    for (int first = lane; first < groups; first += leaf_columns / Group) {
      T y[Sums][8] = {};
      x.template groups<Way, Group, 8 / Group>(g, begin, first, groups, [&](int j, int i, auto const& value) {
        detail::put_result(y, j * Group + i, value);
      });
      columns.add_row(y);
    }
  }

  // From the sums of eights, one on each lane (8) or on every other (4), to the leaf's sum on lane 0.
  template <int Group, class W>
  LIMBER_DETAIL_INLINE static void finish(W const& w,
                                          typename W::template per_lane<lane_columns<T, Sums>>& columns,
                                          typename W::template per_lane<sums<T, Sums>>& sum) {
    typename W::template per_lane<eights> e{};
    w.for_lanes([&](int lane) {
      LIMBER_DETAIL_UNROLL
      for (int s = 0; s < Sums; ++s) W::own(e, lane).of[s] = W::own(columns, lane).of[s][0];
    });
    for (int d = 16; d > (Group == 4 ? 1 : 0); d /= 2)
      w.fold(e, d, [](eights a, eights const& b) {
        LIMBER_DETAIL_UNROLL
        for (int s = 0; s < Sums; ++s)
          a.of[s] = {math::add(a.of[s].ordinary, b.of[s].ordinary), math::add(a.of[s].large, b.of[s].large),
                     math::add(a.of[s].tiny, b.of[s].tiny)};
        return a;
      });
    w.for_lanes([&](int lane) {
      if (lane != 0) return;
      LIMBER_DETAIL_UNROLL
      for (int s = 0; s < Sums; ++s) W::own(sum, 0).of[s] = leaf_sum(W::own(e, 0).of[s]);
    });
  }

  struct eights {
    square_column<T> of[Sums];
  };
  struct row {
    T y[Sums][8];
  };
  struct sums_of_one {
    T y[Sums][1];
  };
};

}  // namespace limber::gpu

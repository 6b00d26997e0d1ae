// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Sums of squares with one fixed order of addition, safe against overflow and underflow.
///
/// Every tensor is cut into leaves of 4,096 elements from its own start. Inside a leaf, element i
/// belongs to column i mod 256; a column is added up row by row, then the 256 columns are added by a
/// fixed binary tree (neighbouring eights first, then the 32 sums of eight). Leaves are added by a
/// binary tree over their index, tensors by a binary tree over their order by name. So the result
/// depends on the values and names alone: not on buckets, threads, launches or devices. A warp
/// holds a leaf as 32 lanes × 8 elements × 16 rows, with 16-byte loads.
///
/// Columns are kept three times, after J. L. Blue (A Portable Fortran Program to Find the Euclidean
/// Norm of a Vector, TOMS 1978): once for elements of ordinary magnitude, once for large ones scaled
/// down, once for tiny ones scaled up. So one pass over the elements is enough.

#include <limber/core/config.hpp>
#include <limber/core/math.hpp>

#include <cstring>

namespace limber {

inline constexpr i64 leaf_size = 4096;
inline constexpr int leaf_columns = 256;

/// A sum of squares as s · 4^e: no square of a finite element overflows or vanishes.
template <class T>
struct square_sum {
  T s = 0;    ///< in [0, 2^34) when finite, NaN when an element is not finite
  int e = 0;  ///< scale exponent; meaningless when s is 0

  [[nodiscard]] LIMBER_HD bool finite() const noexcept { return math::finite(s); }
};

/// a + b: the smaller is scaled to the larger's exponent, exactly but for underflow.
template <class T>
[[nodiscard]] LIMBER_HD inline square_sum<T> add(square_sum<T> a, square_sum<T> b) noexcept {
  if (!a.finite()) return a;
  if (!b.finite()) return b;
  if (math::is_zero(a.s)) return b;
  if (math::is_zero(b.s)) return a;
  if (a.e < b.e) {
    square_sum<T> const c = a;
    a = b;
    b = c;
  }
  int const d = 2 * (b.e - a.e);
  if (d < -100) return a;  // below a rounding of a, even of a double
  return {math::add(a.s, math::mul(b.s, math::power_of_two<T>(d))), a.e};
}

/// The same value in double, for host-side arithmetic. +∞ if it is out of range, NaN if not finite.
template <class T>
[[nodiscard]] LIMBER_HD inline double value_of(square_sum<T> q) noexcept {
  return math::ldexp(static_cast<double>(q.s), 2 * q.e);
}

/// √(sum of squares), in T: the norm itself is in range whenever the elements are, but for a factor
/// of √n.
template <class T>
[[nodiscard]] LIMBER_HD inline T root_of(square_sum<T> q) noexcept {
  if (!q.finite() || math::is_zero(q.s)) return q.s;
  T root = math::sqrt(q.s);
  // 2^e in two halves: e may reach the edge of the range of normal numbers.
  int const half = q.e / 2;
  root = math::mul(root, math::power_of_two<T>(half));
  return math::mul(root, math::power_of_two<T>(q.e - half));
}

/// The same sum with s in [1, 4) and e to match, exactly; zero and what is not finite stay.
template <class T>
[[nodiscard]] LIMBER_HD inline square_sum<T> normalised(square_sum<T> q) noexcept {
  using B = math::detail::bits<T>;
  if (math::is_zero(q.s) || !q.finite()) return q;
  int const exponent = static_cast<int>(math::magnitude_bits(q.s) >> B::mantissa) - B::bias;
  int const half = exponent >= 0 ? exponent / 2 : -((1 - exponent) / 2);
  return {math::mul(q.s, math::power_of_two<T>(-2 * half)), q.e + half};
}

/// One column of a leaf: three running sums of squares, for three ranges of magnitude.
///
///     |v| < 2^−limit: scaled by 2^shift        |v| ≥ 2^limit: scaled by 2^−shift       else as it is
///
/// No sum of 4,096 such squares leaves the range of normal numbers. A v that is not finite makes
/// `large` not finite.
template <class T>
struct square_column {
  static constexpr bool single = sizeof(T) == 4;
  static constexpr int limit = single ? 50 : 450;
  static constexpr int shift = single ? 100 : 700;

  T ordinary = 0, large = 0, tiny = 0;

  /// True if v belongs to `ordinary`, or is zero: then `fma(v, v, ordinary)` is all that add does.
  [[nodiscard]] static LIMBER_HD bool is_ordinary(T v) noexcept {
    using B = math::detail::bits<T>;
    using U = typename B::type;
    auto const u = math::magnitude_bits(v);
    constexpr U low = static_cast<U>(B::bias - limit) << B::mantissa;
    constexpr U high = static_cast<U>(B::bias + limit) << B::mantissa;
    return u - low < high - low || u == 0;
  }

  LIMBER_HD void add(T v) noexcept { add(v, ordinary, large, tiny); }
  static LIMBER_HD void add(T v, T& ordinary, T& large, T& tiny) noexcept {
    if (is_ordinary(v)) {
      ordinary = math::fma(v, v, ordinary);
    } else if (math::magnitude_bits(v) >= math::magnitude_bits(math::power_of_two<T>(limit))) {
      T const x = math::mul(v, math::power_of_two<T>(-shift));
      large = math::fma(x, x, large);
    } else {
      T const x = math::mul(v, math::power_of_two<T>(shift));
      tiny = math::fma(x, x, tiny);
    }
  }
};

/// A leaf's sum from the sums over its columns, each added by the tree.
template <class T>
[[nodiscard]] LIMBER_HD inline square_sum<T> leaf_sum(square_column<T> total) noexcept {
  using B = math::detail::bits<T>;
  if (!math::finite(total.large)) {
    typename B::type const bits = B::infinity | (B::infinity >> 1);
    T nan;
    std::memcpy(&nan, &bits, sizeof nan);
    return {nan, 0};
  }
  constexpr int shift = square_column<T>::shift;
  square_sum<T> const ordinary = normalised(square_sum<T>{total.ordinary, 0});
  if (math::is_zero(total.large) && math::is_zero(total.tiny)) return ordinary;
  return add(add(normalised(square_sum<T>{total.large, shift}), ordinary),
             normalised(square_sum<T>{total.tiny, -shift}));
}

namespace detail {

/// Adds 256 columns by the tree: neighbouring eights first, then the 32 sums of eight.
template <class T>
[[nodiscard]] inline T column_tree(T* column) noexcept {
  for (int width = 4; width > 0; width /= 2)
    for (int c = 0; c < leaf_columns; c += 8)
      for (int k = 0; k < width; ++k) column[c + k] = math::add(column[c + k], column[c + k + width]);
  for (int width = 16; width > 0; width /= 2)
    for (int c = 0; c < width; ++c) column[8 * c] = math::add(column[8 * c], column[8 * (c + width)]);
  return column[0];
}

/// The sums over a leaf's columns, each added by the tree.
template <class T>
[[nodiscard]] inline square_column<T> sum_columns(T const* x, i64 n) noexcept {
  using B = math::detail::bits<T>;
  using U = typename B::type;
  // Whether all are ordinary, in a loop that a compiler can vectorise: 0 wraps to the largest number.
  U largest = 0, smallest = ~U{0};
  for (i64 i = 0; i < n; ++i) {
    auto const m = math::magnitude_bits(x[i]);
    largest = m > largest ? m : largest;
    smallest = m - 1 < smallest ? m - 1 : smallest;
  }
  if (largest == 0) return {};
  constexpr int limit = square_column<T>::limit;
  constexpr U low = static_cast<U>(B::bias - limit) << B::mantissa;
  constexpr U high = static_cast<U>(B::bias + limit) << B::mantissa;
  if (smallest + 1 >= low && largest < high) {
    T column[leaf_columns] = {};
    for (i64 at = 0; at < n; at += leaf_columns) {
      i64 const m = n - at < leaf_columns ? n - at : leaf_columns;
      for (i64 c = 0; c < m; ++c) column[c] = math::fma(x[at + c], x[at + c], column[c]);
    }
    return {column_tree(column), 0, 0};
  }
  T column[3][leaf_columns] = {}, total[3];
  for (i64 i = 0; i < n; ++i) {
    i64 const c = i % leaf_columns;
    square_column<T>::add(x[i], column[0][c], column[1][c], column[2][c]);
  }
  for (int k = 0; k < 3; ++k) total[k] = column_tree(column[k]);
  return {total[0], total[1], total[2]};
}

}  // namespace detail

/// Sum of squares of one leaf, n ≤ 4,096 elements. The host's form; a warp follows the same tree.
template <class T>
[[nodiscard]] inline square_sum<T> leaf_square_sum(T const* x, i64 n) noexcept {
  return leaf_sum(detail::sum_columns(x, n));
}

/// Adds n partial sums, which it overwrites, by a fixed binary tree: neighbours first, then neighbouring
/// pairs, ….
template <class T>
[[nodiscard, gnu::noinline]] square_sum<T> tree_sum(square_sum<T>* part, i64 n) noexcept {
  for (i64 width = 1; width < n; width *= 2)
    for (i64 i = 0; i + width < n; i += 2 * width) part[i] = add(part[i], part[i + width]);
  return n > 0 ? part[0] : square_sum<T>{};
}

/// Norms that a rule may ask for, of one tensor and of the whole list. All in the compute type.
template <class T>
struct norms {
  T value = 0;     ///< ‖w‖ of this tensor
  T gradient = 0;  ///< ‖g‖ of this tensor, g as the rule receives it (averaged, unscaled)
  T total = 0;     ///< ‖g‖ over all tensors of the optimizer
};

}  // namespace limber

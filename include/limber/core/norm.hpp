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

#include <limber/core/config.hpp>
#include <limber/core/math.hpp>

#include <cstddef>
#include <span>

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
  if (a.s == 0) return b;
  if (b.s == 0) return a;
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
[[nodiscard]] inline double value_of(square_sum<T> q) noexcept {
  return std::ldexp(static_cast<double>(q.s), 2 * q.e);
}

/// √(sum of squares), in T: the norm itself is in range whenever the elements are, but for a factor
/// of √n.
template <class T>
[[nodiscard]] LIMBER_HD inline T root_of(square_sum<T> q) noexcept {
  if (!q.finite() || q.s == 0) return q.s;
  T root = math::sqrt(q.s);
  // 2^e in two halves: e may reach the edge of the range of normal numbers.
  int const half = q.e / 2;
  root = math::mul(root, math::power_of_two<T>(half));
  return math::mul(root, math::power_of_two<T>(q.e - half));
}

namespace detail {

/// The exponent that brings the largest magnitude of a leaf to [1, 2); NaN or infinity is reported.
template <class T>
[[nodiscard]] LIMBER_HD inline int leaf_exponent(typename math::detail::bits<T>::type largest) noexcept {
  using B = math::detail::bits<T>;
  int const field = static_cast<int>(largest >> B::mantissa);
  // Subnormals are scaled like the smallest normal number.
  int const e = (field == 0 ? 1 : field) - B::bias;
  int const limit = B::bias - 1;
  return e > limit ? limit : e;
}

}  // namespace detail

/// Sum of squares of one leaf, n ≤ 4,096 elements. The host's form; a warp follows the same tree.
///
/// The exponent is a multiple of 1; elements are scaled by 2^−e, an exact operation, before they
/// are squared.
template <class T>
[[nodiscard]] inline square_sum<T> leaf_square_sum(T const* x, i64 n) noexcept {
  using B = math::detail::bits<T>;
  typename B::type largest = 0;
  for (i64 i = 0; i < n; ++i) {
    auto const m = math::magnitude_bits(x[i]);
    largest = m > largest ? m : largest;
  }
  if (largest == 0) return {};
  if (largest >= B::infinity) {
    typename B::type const nan = B::infinity | (B::infinity >> 1);
    T bad;
    std::memcpy(&bad, &nan, sizeof bad);
    return {bad, 0};
  }
  int const e = detail::leaf_exponent<T>(largest);
  T const scale = math::power_of_two<T>(-e);
  T column[leaf_columns] = {};
  i64 const rows = n / leaf_columns, rest = n % leaf_columns;
  for (i64 r = 0; r < rows; ++r)
    for (int c = 0; c < leaf_columns; ++c) {
      T const v = math::mul(x[r * leaf_columns + c], scale);
      column[c] = math::fma(v, v, column[c]);
    }
  for (int c = 0; c < rest; ++c) {
    T const v = math::mul(x[rows * leaf_columns + c], scale);
    column[c] = math::fma(v, v, column[c]);
  }
  for (int width = 4; width > 0; width /= 2)
    for (int c = 0; c < leaf_columns; c += 8)
      for (int k = 0; k < width; ++k) column[c + k] = math::add(column[c + k], column[c + k + width]);
  for (int width = 16; width > 0; width /= 2)
    for (int c = 0; c < width; ++c) column[8 * c] = math::add(column[8 * c], column[8 * (c + width)]);
  return {column[0], e};
}

/// Adds partial sums by a fixed binary tree: halves of the smallest power of two ≥ their number.
template <class T>
[[nodiscard]] inline square_sum<T> tree_sum(std::span<square_sum<T> const> part) noexcept {
  if (part.empty()) return {};
  if (part.size() == 1) return part[0];
  std::size_t half = 1;
  while (2 * half < part.size()) half *= 2;
  return add(tree_sum(part.first(half)), tree_sum(part.subspan(half)));
}

/// Norms that a rule may ask for, of one tensor and of the whole list. All in the compute type.
template <class T>
struct norms {
  T value = 0;     ///< ‖w‖ of this tensor
  T gradient = 0;  ///< ‖g‖ of this tensor, g as the rule receives it (averaged, unscaled)
  T total = 0;     ///< ‖g‖ over all tensors of the optimizer
};

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Dividing a whole number in proportion to weights.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/math.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

namespace limber {

/// What shares can be proportional to: counts (exact) or speeds.
template <class W>
concept apportion_weight = std::same_as<W, i64> || std::same_as<W, double>;

namespace detail {

/// A claim of total · w / sum, cut into its whole part and a remainder that can be compared.
template <apportion_weight W>
struct quota {
  i64 whole;
  W rest;
};

template <apportion_weight W>
[[nodiscard]] quota<W> quota_of(i64 total, W weight, W sum) noexcept {
  if constexpr (std::is_same_v<W, i64>) {
    return {total * weight / sum, total * weight % sum};
  } else {
    double const exact = static_cast<double>(total) * weight / sum;
    double const whole = std::floor(exact);
    return {static_cast<i64>(whole), exact - whole};
  }
}

template <apportion_weight W>
[[nodiscard]] W checked_sum(i64 total, std::span<W const> weights) {
  expects(total >= 0, "apportion: total must not be negative, got ", total);
  expects(!weights.empty(), "apportion: there are no weights");
  W sum = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    W const w = weights[i];
    if constexpr (std::is_same_v<W, i64>) {
      expects(w >= 0, "apportion: weight of rank ", i, " must not be negative, got ", w);
      expects(w <= std::numeric_limits<i64>::max() - sum, "apportion: weights up to rank ", i, " overflow");
      expects(total == 0 || w <= std::numeric_limits<i64>::max() / total, "apportion: total ", total,
              " x weight ", w, " of rank ", i, " does not fit 64 bits");
    } else {
      expects(math::finite(w) && w >= 0, "apportion: weight of rank ", i,
              " must be finite and not negative, got ", w);
    }
    sum += w;
  }
  expects(sum > 0, "apportion: weights must have a positive sum, got ", sum);
  if constexpr (std::is_same_v<W, double>) {
    expects(total <= (i64{1} << 53), "apportion: total must be at most 2^53, got ", total);
    expects(math::finite(sum) && math::finite(sum * static_cast<double>(total)), "apportion: weights sum to ",
            sum, ", too much for a total of ", total);
  }
  return sum;
}

/// `apportion` into vectors that the caller keeps: allocates nothing once they are large enough.
template <apportion_weight W>
void apportion_into(i64 total, std::span<W const> weights, std::vector<i64>& share, std::vector<i64>& order) {
  W const sum = checked_sum(total, weights);
  auto const at = [&](i64 i) { return quota_of(total, weights[static_cast<std::size_t>(i)], sum); };
  auto const n = weights.size();
  share.resize(n);
  order.resize(n);
  std::iota(order.begin(), order.end(), i64{0});
  i64 left = total;
  for (std::size_t i = 0; i < n; ++i) {
    share[i] = at(static_cast<i64>(i)).whole;
    left -= share[i];
  }
  if (left == 0) return;
  auto const first = [&](i64 a, i64 b) {
    W const x = at(a).rest, y = at(b).rest;
    return x > y || (x == y && a < b);
  };
  auto const claims = [&](i64 i) { return weights[static_cast<std::size_t>(i)] > 0; };
  if (left > 0 && left < static_cast<i64>(n)) {
    auto const last = order.begin() + left;
    std::nth_element(order.begin(), last, order.end(), first);
    if (std::all_of(order.begin(), last, claims)) {
      std::for_each(order.begin(), last, [&](i64 i) { ++share[static_cast<std::size_t>(i)]; });
      return;
    }
  }
  // That is all for whole weights. In double, a quota may round across a whole number, and then a few
  // more are to be given, or to be taken back.
  std::sort(order.begin(), order.end(), first);
  while (left > 0)
    for (i64 const i : order) {
      if (left == 0 || !claims(i)) continue;
      ++share[static_cast<std::size_t>(i)];
      --left;
    }
  while (left < 0)
    for (auto i = order.rbegin(); i != order.rend() && left < 0; ++i)
      if (auto& s = share[static_cast<std::size_t>(*i)]; s > 0) {
        --s;
        ++left;
      }
}

}  // namespace detail

/// Divides `total` in proportion to `weights` by largest remainders (Hamilton's method).
///
///     qᵢ = total · wᵢ / Σw      sᵢ = ⌊qᵢ⌋, and + 1 for the largest qᵢ − ⌊qᵢ⌋ until Σ sᵢ = total
///
/// Shapes   one share a weight; Σ shares = total exactly; |sᵢ − qᵢ| < 1; weight 0 gets 0.
/// Cost     O(n) on average, O(n log n) at worst.
/// Choices  equal remainders: the lower rank first, so that every rank computes the same shares.
///          Whole weights are divided exactly; with double weights quotas are rounded, and |sᵢ − qᵢ|
///          holds up to that rounding.
/// @throws std::invalid_argument for a negative total, no weights, a weight that is negative or not
///         finite, weights that sum to 0, and sizes whose products overflow
template <apportion_weight W>
[[nodiscard]] std::vector<i64> apportion(i64 total, std::span<W const> weights) {
  std::vector<i64> share, order;
  detail::apportion_into(total, weights, share, order);
  return share;
}

template <apportion_weight W>
[[nodiscard]] std::vector<i64> apportion(i64 total, std::vector<W> const& weights) {
  return apportion(total, std::span<W const>(weights));
}

}  // namespace limber

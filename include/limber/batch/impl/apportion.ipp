// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/apportion.hpp>
#include <limber/core/error.hpp>
#include <limber/core/math.hpp>
#include <limber/core/order.hpp>

#include <limits>

namespace limber::detail {

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
    double const whole = math::floor(exact);
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

template <apportion_weight W>
void apportion_into(i64 total, std::span<W const> weights, std::vector<i64>& share, std::vector<i64>& order) {
  W const sum = checked_sum(total, weights);
  auto const at = [&](i64 i) { return quota_of(total, weights[static_cast<std::size_t>(i)], sum); };
  auto const n = weights.size();
  share.resize(n);
  order.resize(n);
  i64 left = total;
  for (std::size_t i = 0; i < n; ++i) {
    order[i] = static_cast<i64>(i);
    share[i] = at(order[i]).whole;
    left -= share[i];
  }
  if (left == 0) return;
  auto const first = [&](i64 a, i64 b) {
    W const x = at(a).rest, y = at(b).rest;
    return x > y || (x == y && a < b);
  };
  sort(order, first);
  // Whole weights leave less than one each. In double, a quota may round across a whole number, and then a
  // few more are to be given, or to be taken back.
  while (left > 0)
    for (i64 const i : order) {
      if (left == 0 || !(weights[static_cast<std::size_t>(i)] > 0)) continue;
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

#if defined(LIMBER_COMPILED)
template void apportion_into<i64>(i64, std::span<i64 const>, std::vector<i64>&, std::vector<i64>&);
template void apportion_into<double>(i64, std::span<double const>, std::vector<i64>&, std::vector<i64>&);
#endif

}  // namespace limber::detail

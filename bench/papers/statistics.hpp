// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Means over seeds and their intervals.

#include "row.hpp"

#include <limber/core/error.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace limber::papers {

[[nodiscard]] inline double mean(std::vector<double> const& x) {
  expects(!x.empty(), "mean: there are no values");
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

/// Standard deviation of the sample, with n − 1; 0 for one value.
[[nodiscard]] inline double deviation(std::vector<double> const& x) {
  double const m = mean(x);
  double sum = 0;
  for (double const v : x) sum += (v - m) * (v - m);
  return x.size() < 2 ? 0 : std::sqrt(sum / static_cast<double>(x.size() - 1));
}

[[nodiscard]] inline double median(std::vector<double> x) {
  expects(!x.empty(), "median: there are no values");
  std::ranges::sort(x);
  std::size_t const n = x.size();
  return n % 2 == 1 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/// 97.5 % quantile of Student's t with `freedom` degrees of freedom; beyond 30 by Cornish and Fisher.
[[nodiscard]] inline double t_quantile(std::size_t freedom) {
  constexpr std::array table{12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
                             2.2010,  2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
                             2.0796,  2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423};
  if (freedom == 0) return std::numeric_limits<double>::infinity();
  if (freedom <= table.size()) return table[freedom - 1];
  constexpr double z = 1.959964;
  return z + (z * z * z + z) / (4 * static_cast<double>(freedom));
}

/// A mean and its 95 % interval.
struct estimate {
  double value = 0;
  double low = 0;
  double high = 0;

  [[nodiscard]] std::pair<double, double> interval() const { return {low, high}; }
};

/// "[0.91, 1.20]"
[[nodiscard]] inline std::string interval_text(estimate const& e) {
  return '[' + short_number(e.low) + ", " + short_number(e.high) + ']';
}

/// 95 % by Student's t: x̄ ± t s / √n. Of differences between paired seeds it is the paired t interval.
[[nodiscard]] inline estimate estimated(std::vector<double> const& x) {
  double const m = mean(x);
  if (x.size() < 2 || !std::isfinite(m))
    return {m, -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
  double const half = t_quantile(x.size() - 1) * deviation(x) / std::sqrt(static_cast<double>(x.size()));
  return {m, m - half, m + half};
}

/// Paired by seed: x − y.
[[nodiscard]] inline estimate difference(std::vector<double> const& x, std::vector<double> const& y) {
  expects(x.size() == y.size(), "difference: ", x.size(), " values but ", y.size());
  std::vector<double> d(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) d[i] = x[i] - y[i];
  return estimated(d);
}

/// Paired by seed: x / y as a geometric mean, its interval by t on logarithms. @pre x, y > 0
[[nodiscard]] inline estimate ratio(std::vector<double> const& x, std::vector<double> const& y) {
  expects(x.size() == y.size(), "ratio: ", x.size(), " values but ", y.size());
  std::vector<double> d(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) d[i] = std::log(x[i] / y[i]);
  auto const e = estimated(d);
  return {std::exp(e.value), std::exp(e.low), std::exp(e.high)};
}

}  // namespace limber::papers

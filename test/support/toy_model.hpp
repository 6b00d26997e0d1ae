// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A small model whose gradients are known per sample: the host framework of the strategy tests.

#include <limber/core/random.hpp>
#include <limber/core/tensor.hpp>

#include <cmath>
#include <cstring>
#include <vector>

namespace limber::testing {

/// Least squares on made-up data: loss of sample s is ½ (w·x(s) + b − y(s))².
///
/// Gradients are summed in double and rounded once, so that a worker's own arithmetic adds no noise to
/// what a test measures.
template <class T>
struct toy_model {
  static constexpr i64 features = 20;
  std::vector<T> w = std::vector<T>(features, T(0.5)), b = {T(0)};
  std::vector<T> gw = std::vector<T>(features), gb = std::vector<T>(1);

  [[nodiscard]] std::vector<tensor> parameters() { return {{"w", w, gw}, {"b", b, gb}}; }
  [[nodiscard]] std::vector<T> all() const {
    std::vector<T> out = w;
    out.push_back(b[0]);
    return out;
  }

  [[nodiscard]] static double uniform(i64 sample, i64 k) {
    return static_cast<double>(
               random_bits(11, static_cast<std::uint64_t>(k), static_cast<std::uint64_t>(sample)) >> 11) *
               0x1p-53 -
           0.5;
  }

  /// Adds the mean (or the sum) of the samples' gradients to the gradient buffers.
  template <class Samples>
  void backward(Samples const& samples, bool mean = true) {
    std::vector<double> g(features + 1);
    for (i64 const s : samples) {
      double e = static_cast<double>(b[0]) - 1 - uniform(s, 99), y = 0;
      for (i64 k = 0; k < features; ++k) {
        double const x = uniform(s, k) + 0.3;
        e += static_cast<double>(w[static_cast<std::size_t>(k)]) * x;
        y += 0.2 * static_cast<double>(k) * x;
      }
      e -= y;
      for (i64 k = 0; k < features; ++k) g[static_cast<std::size_t>(k)] += e * (uniform(s, k) + 0.3);
      g[features] += e;
    }
    double const n = mean ? static_cast<double>(std::size(samples)) : 1.0;
    if (std::size(samples) == 0) return;
    for (i64 k = 0; k < features; ++k)
      gw[static_cast<std::size_t>(k)] = static_cast<T>(static_cast<double>(gw[static_cast<std::size_t>(k)]) +
                                                       g[static_cast<std::size_t>(k)] / n);
    gb[0] = static_cast<T>(static_cast<double>(gb[0]) + g[features] / n);
  }
};

/// Samples first, first + 1, …, first + n − 1.
[[nodiscard]] inline std::vector<i64> run_of(i64 first, i64 n) {
  std::vector<i64> out;
  for (i64 k = 0; k < n; ++k) out.push_back(first + k);
  return out;
}

/// ‖a − b‖ / ‖b‖.
template <class T>
[[nodiscard]] double distance(std::vector<T> const& a, std::vector<T> const& b) {
  double d = 0, n = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    d += (static_cast<double>(a[k]) - static_cast<double>(b[k])) *
         (static_cast<double>(a[k]) - static_cast<double>(b[k]));
    n += static_cast<double>(b[k]) * static_cast<double>(b[k]);
  }
  return std::sqrt(d) / std::sqrt(n);
}

template <class T>
[[nodiscard]] bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace limber::testing

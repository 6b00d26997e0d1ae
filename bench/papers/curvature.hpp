// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How sharp a minimum is.

#include "task.hpp"

#include <limber/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace limber::papers {

/// The largest eigenvalue of the Hessian of the training loss, by power iteration.
///
///     H u ≈ (∇f(w + ε u) − ∇f(w − ε u)) / 2ε          ‖u‖ = 1, ε = max(10⁻³, 10⁻³ ‖w‖)
///
/// Cost     2 · iterations gradients over up to 1,000 samples.
[[nodiscard]] inline double top_eigenvalue(task const& data, int hidden, values const& w,
                                           int iterations = 30) {
  network net(data.of(hidden));
  auto const samples = data.probe(1000);
  std::size_t const n = w.size();
  double square = 0;
  for (float const x : w) square += static_cast<double>(x) * static_cast<double>(x);
  auto const step = static_cast<float>(std::max(1e-3, 1e-3 * std::sqrt(square)));
  values u(n), moved(n), up(n), down(n);
  for (std::size_t i = 0; i < n; ++i) u[i] = static_cast<float>(random_bits(3, 0, i) >> 40) * 0x1p-23f - 1.f;
  double value = 0;
  for (int k = 0; k < iterations; ++k) {
    double norm = 0;
    for (float const x : u) norm += static_cast<double>(x) * static_cast<double>(x);
    norm = std::sqrt(norm);
    if (norm == 0) return 0;
    for (auto& x : u) x = static_cast<float>(static_cast<double>(x) / norm);
    auto const gradient = [&](float sign, values& to) {
      for (std::size_t i = 0; i < n; ++i) moved[i] = w[i] + sign * step * u[i];
      std::ranges::fill(to, 0.f);
      (void)data.run(net, moved, samples, to.data());
    };
    gradient(1, up);
    gradient(-1, down);
    value = 0;
    for (std::size_t i = 0; i < n; ++i) {
      float const h = (up[i] - down[i]) / (2 * step);
      value += static_cast<double>(h) * static_cast<double>(u[i]);
      u[i] = h;
    }
  }
  return value;
}

}  // namespace limber::papers

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The trainer of the smallest examples. It knows nothing of workers.

#include <limber/core/tensor.hpp>

#include <cmath>
#include <span>
#include <vector>

namespace example {

/// A straight line through noisy points, y = 3x − 1.
struct line {
  std::vector<float> w{0, 0}, gradient{0, 0};

  [[nodiscard]] std::vector<limber::tensor> parameters() { return {{"line", w, gradient}}; }

  /// Mean gradient of the squared error over `batch`.
  void backward(std::span<limber::i64 const> batch) {
    for (limber::i64 i : batch) {
      float const x = static_cast<float>(i % 100) / 100;
      float const error = w[0] * x + w[1] - (3 * x - 1 + 0.1f * std::sin(static_cast<float>(i)));
      gradient[0] += error * x / static_cast<float>(batch.size());
      gradient[1] += error / static_cast<float>(batch.size());
    }
  }

  /// How far it is from the truth.
  [[nodiscard]] float error() const { return std::abs(w[0] - 3) + std::abs(w[1] + 1); }
};

}  // namespace example

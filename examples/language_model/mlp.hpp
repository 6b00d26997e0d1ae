// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One hidden layer and a softmax, forward and backward, on Eigen.

#include <limber/core/random.hpp>
#include <limber/core/tensor.hpp>

// Every worker is a thread of its own; Eigen must not start more.
#define EIGEN_DONT_PARALLELIZE
// GCC 12 takes the undefined values that its own AVX-512 intrinsics begin with for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace example {

using matrix = Eigen::MatrixXf;

/// An array of parameters with its gradient.
struct parameter {
  std::string name;
  matrix value;
  matrix gradient;

  /// Uniform in ±bound, drawn from (seed, stream): the same for every worker and variant.
  parameter(std::string n, int rows, int columns, float bound, std::uint64_t seed, std::uint64_t stream)
      : name(std::move(n)), value(rows, columns), gradient(matrix::Zero(rows, columns)) {
    for (Eigen::Index i = 0; i < value.size(); ++i) {
      auto const bits = limber::random_bits(seed, stream, static_cast<std::uint64_t>(i));
      value.data()[i] = bound * (static_cast<float>(bits >> 40) * 0x1p-23f - 1.f);
    }
  }

  /// What an optimizer needs to know. The views hold as long as this object stays where it is.
  [[nodiscard]] limber::tensor tensor() {
    return {name, std::span{value.data(), static_cast<std::size_t>(value.size())},
            std::span{gradient.data(), static_cast<std::size_t>(gradient.size())}};
  }
};

/// How well a set of samples is predicted.
struct score {
  double bits = 0;      ///< mean cross-entropy, base 2: bits per byte for text
  double accuracy = 0;  ///< share of samples whose most likely class is the right one
};

/// A multi-layer perceptron with one hidden layer.
///
///     h = max(0, W₁x + b₁)      p = softmax(W₂h + b₂)      loss = −log p[target], averaged over samples
///
/// Shapes   a batch is a matrix with one sample a column: x is inputs × n, p is classes × n.
/// Cost     6n(inputs·hidden + hidden·classes) flops for forward and backward.
class mlp {
 public:
  mlp(int inputs, int hidden, int classes, std::uint64_t seed)
      : hidden_weight_("hidden.weight", hidden, inputs, glorot(inputs, hidden), seed, 1),
        hidden_bias_("hidden.bias", hidden, 1, 0, seed, 2),
        output_weight_("output.weight", classes, hidden, glorot(hidden, classes), seed, 3),
        output_bias_("output.bias", classes, 1, 0, seed, 4) {}

  /// What forward() leaves for backward().
  struct activations {
    matrix x;  ///< the input, written by the caller
    matrix h;
    matrix p;
  };

  /// Fills h and p, and adds up loss (in bits) and hits over the columns of a.x.
  [[nodiscard]] score forward(activations& a, std::span<std::uint8_t const> targets) const {
    a.h.noalias() = hidden_weight_.value * a.x;
    a.h.colwise() += hidden_bias_.value.col(0);
    a.h = a.h.cwiseMax(0.f);
    a.p.noalias() = output_weight_.value * a.h;
    a.p.colwise() += output_bias_.value.col(0);

    score sum;
    for (Eigen::Index j = 0; j < a.p.cols(); ++j) {
      auto column = a.p.col(j).array();
      Eigen::Index likeliest = 0;
      float const top = column.maxCoeff(&likeliest);
      auto const target = static_cast<Eigen::Index>(targets[static_cast<std::size_t>(j)]);
      double const wanted = static_cast<double>(column[target]) - static_cast<double>(top);
      column = (column - top).exp();
      float const total = column.sum();
      column /= total;
      sum.bits += (std::log(static_cast<double>(total)) - wanted) / std::numbers::ln2;
      sum.accuracy += likeliest == target ? 1 : 0;
    }
    return sum;
  }

  /// Adds the mean gradient over the columns of `a` to the parameters' gradients, and leaves the
  /// gradient of the input in a.x. @pre forward() filled `a`, with the same targets
  void backward(activations& a, std::span<std::uint8_t const> targets, bool wants_input_gradient) {
    float const weight = 1.f / static_cast<float>(a.p.cols());
    for (Eigen::Index j = 0; j < a.p.cols(); ++j) a.p(targets[static_cast<std::size_t>(j)], j) -= 1;
    a.p *= weight;
    output_weight_.gradient.noalias() += a.p * a.h.transpose();
    output_bias_.gradient += a.p.rowwise().sum();
    back_.noalias() = output_weight_.value.transpose() * a.p;
    back_.array() *= (a.h.array() > 0.f).cast<float>();
    hidden_weight_.gradient.noalias() += back_ * a.x.transpose();
    hidden_bias_.gradient += back_.rowwise().sum();
    if (wants_input_gradient) a.x.noalias() = hidden_weight_.value.transpose() * back_;
  }

  [[nodiscard]] std::vector<limber::tensor> parameters() {
    return {hidden_weight_.tensor(), hidden_bias_.tensor(), output_weight_.tensor(), output_bias_.tensor()};
  }

 private:
  /// Glorot and Bengio's bound: keeps the variance of signals about constant from layer to layer.
  [[nodiscard]] static float glorot(int in, int out) { return std::sqrt(6.f / static_cast<float>(in + out)); }

  parameter hidden_weight_, hidden_bias_, output_weight_, output_bias_;
  matrix back_;
};

}  // namespace example

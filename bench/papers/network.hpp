// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The small classifiers that are trained: softmax regression, or one hidden layer, over one flat array.

#include <limber/core/random.hpp>
#include <limber/core/tensor.hpp>

// Runs are spread over the cores already, and each has small stacks.
#define EIGEN_DONT_PARALLELIZE
#define EIGEN_STACK_ALLOCATION_LIMIT 16384
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace limber::papers {

/// Numbers of a model. Aligned always alike: how Eigen groups a sum depends on where its operands begin.
using values = std::vector<float, Eigen::aligned_allocator<float>>;

/// Inputs, hidden units (0: none, which makes the loss convex) and classes.
struct shape {
  int inputs = 0;
  int hidden = 0;
  int classes = 0;

  [[nodiscard]] std::size_t parameters() const {
    auto const in = static_cast<std::size_t>(inputs), h = static_cast<std::size_t>(hidden),
               out = static_cast<std::size_t>(classes);
    return hidden == 0 ? (in + 1) * out : (in + 1) * h + (h + 1) * out;
  }
};

/// Mean loss in nats, and share of hits.
struct score {
  double loss = 0;
  double accuracy = 0;
};

/// p = softmax(W x + b), or softmax(W₂ tanh(W₁ x + b₁) + b₂).
///
/// Shapes   x is inputs × n, a sample a column; parameters are one array, layer by layer, W before b.
/// State    scratch memory only: parameters and gradients are the caller's.
/// Choices  tanh, so that the loss is smooth: curvature is measured by differences of gradients.
class network {
 public:
  using matrix = Eigen::MatrixXf;

  explicit network(shape s) : shape_(s) {}

  /// Uniform in ± √(6 / (in + out)), biases 0; the same for all who name the same seed.
  static void initialize(shape s, std::span<float> w, std::uint64_t seed) {
    std::size_t at = 0;
    auto const layer = [&](int in, int out) {
      float const bound = s.hidden == 0 ? 0 : std::sqrt(6.f / static_cast<float>(in + out));
      for (int i = 0; i < in * out; ++i, ++at) {
        auto const bits = random_bits(seed, 7, at);
        w[at] = bound * (static_cast<float>(bits >> 40) * 0x1p-23f - 1.f);
      }
      for (int i = 0; i < out; ++i) w[at++] = 0;
    };
    if (s.hidden > 0) layer(s.inputs, s.hidden);
    layer(s.hidden > 0 ? s.hidden : s.inputs, s.classes);
  }

  /// Room for n samples, to be filled by the caller.
  [[nodiscard]] matrix& input(std::size_t n) {
    x_.resize(shape_.inputs, static_cast<Eigen::Index>(n));
    return x_;
  }

  /// Their classes, to be filled by the caller.
  [[nodiscard]] std::vector<std::uint8_t>& targets(std::size_t n) {
    y_.resize(n);
    return y_;
  }

  /// Score of the samples in `input`; with a gradient given, adds its mean over the samples.
  score run(std::span<float const> w, float* gradient = nullptr) {
    using map = Eigen::Map<matrix const>;
    auto const in = shape_.inputs, h = shape_.hidden, out = shape_.classes;
    float const* at = w.data();
    matrix const* top = &x_;
    if (h > 0) {
      hidden_.noalias() = map(at, h, in) * x_;
      hidden_.colwise() += Eigen::Map<Eigen::VectorXf const>(at + h * in, h);
      hidden_ = hidden_.array().tanh();
      at += h * (in + 1);
      top = &hidden_;
    }
    int const below = h > 0 ? h : in;
    map const weight(at, out, below);
    p_.noalias() = weight * *top;
    p_.colwise() += Eigen::Map<Eigen::VectorXf const>(at + out * below, out);
    score const sum = softmax();
    auto const n = static_cast<double>(p_.cols());
    if (gradient != nullptr) {
      for (Eigen::Index j = 0; j < p_.cols(); ++j) p_(y_[static_cast<std::size_t>(j)], j) -= 1;
      p_ *= static_cast<float>(1 / n);
      float* to = gradient + (at - w.data());
      Eigen::Map<matrix>(to, out, below).noalias() += p_ * top->transpose();
      Eigen::Map<Eigen::VectorXf>(to + out * below, out) += p_.rowwise().sum();
      if (h > 0) {
        back_.noalias() = weight.transpose() * p_;
        back_.array() *= 1 - hidden_.array().square();
        Eigen::Map<matrix>(gradient, h, in).noalias() += back_ * x_.transpose();
        Eigen::Map<Eigen::VectorXf>(gradient + h * in, h) += back_.rowwise().sum();
      }
    }
    return {sum.loss / n, sum.accuracy / n};
  }

 private:
  // Makes probabilities of p_, and adds up loss and hits.
  score softmax() {
    score sum;
    for (Eigen::Index j = 0; j < p_.cols(); ++j) {
      auto column = p_.col(j).array();
      Eigen::Index likeliest = 0;
      float const top = column.maxCoeff(&likeliest);
      auto const target = static_cast<Eigen::Index>(y_[static_cast<std::size_t>(j)]);
      double const wanted = static_cast<double>(column[target]) - static_cast<double>(top);
      column = (column - top).exp();
      float const total = column.sum();
      column /= total;
      sum.loss += std::log(static_cast<double>(total)) - wanted;
      sum.accuracy += likeliest == target ? 1 : 0;
    }
    return sum;
  }

  shape shape_;
  matrix x_, hidden_, p_, back_;
  std::vector<std::uint8_t> y_;
};

/// ‖x − y‖ / ‖y‖
[[nodiscard]] inline double distance(values const& x, values const& y) {
  double apart = 0, norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    apart += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
    norm += std::pow(static_cast<double>(y[i]), 2);
  }
  return std::sqrt(apart / norm);
}

}  // namespace limber::papers

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// LAMB: Adam's direction, with a length per tensor that follows the tensor's norm.

#include <limber/core/math.hpp>
#include <limber/rule/adam.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/statistics.hpp>

#include <cstddef>
#include <limits>

namespace limber {

/// Layer-wise adaptive moments, in two passes: the step needs the norm of its own direction.
///
///     m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²
///     d = m̂ / (√v̂ + ε) + λ p                 m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)
///     p ← p − η (φ(‖p‖) / ‖d‖) d             the ratio is 1 if φ(‖p‖) or ‖d‖ is 0
///
/// Shapes   norms are over one tensor, ‖p‖ of its value before the update.
/// Units    η is the share of its own norm by which a tensor moves in one step; λ per step, times that.
/// State    two moment slots, m and v, zero before the first update.
/// Cost     two passes over memory, with the norm of d between them.
/// Choices  Bias correction is on, as in the paper's Algorithm 2. φ(z) = min(z, max_value_norm), by
///          default z itself; 10 is the limit that the authors' code and others use.
/// Paper    You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes,
///          ICLR 2020, arXiv:1904.00962, Algorithm 2.
struct lamb {
  static constexpr std::array slots{slot::moment, slot::moment};
  static constexpr bool value_norm = true;
  static constexpr std::size_t slots_spared = 2;

  double beta1 = 0.9;          ///< decay of m, in [0, 1)
  double beta2 = 0.999;        ///< decay of v, in [0, 1)
  double eps = 1e-6;           ///< ε, > 0
  double weight_decay = 0.01;  ///< λ, ≥ 0

  /// Limit of φ, > 0.
  double max_value_norm = std::numeric_limits<double>::infinity();

  template <class T>
  struct coefficients {
    adam::coefficients<T> moments;  ///< at rate −1: its step is 1 / (1 − β₁ᵗ)
    T decay;                        ///< λ
    T max_value_norm;
    T rate;  ///< −η
    T step;  ///< −η φ(‖p‖) / ‖d‖
  };

  /// @pre f.t ≥ 1
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    adam const moments{.beta1 = beta1, .beta2 = beta2, .eps = eps};
    auto const rate = static_cast<T>(-f.rate);
    return {moments.at<T>({.t = f.t, .rate = -1, .previous_rate = -1}), static_cast<T>(weight_decay),
            static_cast<T>(max_value_norm), rate, rate};
  }

  /// d; m and v are updated in place.
  template <class T>
  [[nodiscard]] static LIMBER_HD T direction(coefficients<T> const& c, T p, T g, T& m, T& v) noexcept {
    T const d = adam::normalised(c.moments, g, m, v);
    return math::fma(c.moments.step, d, math::mul(c.decay, p));
  }

  /// @param n  n.value = ‖p‖, n.gradient = ‖d‖
  template <class T>
  [[nodiscard]] static LIMBER_HD coefficients<T> refine_direction(coefficients<T> c, norms<T> n) noexcept {
    bool const defined = !math::is_zero(n.value) && !math::is_zero(n.gradient);
    T const ratio = defined ? math::div(math::min(n.value, c.max_value_norm), n.gradient) : T{1};
    c.step = math::mul(c.rate, ratio);
    return c;
  }

  /// The new parameter from direction d.
  template <class T, class... S>
  [[nodiscard]] static LIMBER_HD T apply(coefficients<T> const& c, T p, T d, S&...) noexcept {
    return math::fma(c.step, d, p);
  }

  void check() const {
    adam{beta1, beta2, eps, weight_decay}.check_as("lamb");
    expects(max_value_norm > 0, "lamb: max_value_norm must be > 0, got ", max_value_norm);
  }
};

static_assert(update_rule<lamb> && two_pass<lamb>);

}  // namespace limber

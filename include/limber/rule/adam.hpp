// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Adam: steps of about the length of the rate, whatever the scale of the gradient.

#include <limber/core/math.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/statistics.hpp>

namespace limber {

/// Adam, with L2 regularisation added to the gradient.
///
///     g ← g + λ p
///     m ← β₁ m + (1 − β₁) g
///     v ← β₂ v + (1 − β₂) g²
///     p ← p − η m̂ / (√v̂ + ε)          m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)
///
/// Units    η in parameter units per step; ε in gradient units; t counts this tensor's updates from 1.
/// State    two moment slots, m and v, zero before the first update.
/// Choices  ε outside the root and after bias correction, as in torch.optim.Adam (the paper's text).
///          Decay passes through m and v; for decay that does not, see adamw.
///          g² is limited to the largest finite number (statistics.hpp).
/// Paper    Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980,
///          Algorithm 1.
struct adam {
  static constexpr std::array slots{slot::moment, slot::moment};

  double beta1 = 0.9;       ///< decay of m, in [0, 1)
  double beta2 = 0.999;     ///< decay of v, in [0, 1)
  double eps = 1e-8;        ///< ε, > 0
  double weight_decay = 0;  ///< λ, ≥ 0

  template <class T>
  struct coefficients {
    average_weights<T> m, v;
    T rsqrt_bias2;  ///< 1 / √(1 − β₂ᵗ)
    T eps;
    T step;   ///< −η / (1 − β₁ᵗ)
    T decay;  ///< λ
  };

  /// @pre f.t ≥ 1
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    auto const t = static_cast<double>(f.t);
    double const bias1 = 1 - math::pow(beta1, t), bias2 = 1 - math::pow(beta2, t);
    return {average_of<T>(beta1),
            average_of<T>(beta2),
            static_cast<T>(1 / math::sqrt(bias2)),
            static_cast<T>(eps),
            static_cast<T>(-f.rate / bias1),
            static_cast<T>(weight_decay)};
  }

  /// m / (√v̂ + ε) after m and v have seen g: the step's direction but for 1 / (1 − β₁ᵗ).
  template <class T>
  [[nodiscard]] static LIMBER_HD T normalised(coefficients<T> const& c, T g, T& m, T& v) noexcept {
    m = moving_average(c.m, m, g);
    v = moving_average(c.v, v, limited(math::mul(g, g)));
    return math::div(m, math::fma(math::sqrt(v), c.rsqrt_bias2, c.eps));
  }

  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g, T& m, T& v) noexcept {
    T const d = normalised(c, math::fma(c.decay, p, g), m, v);
    return math::fma(c.step, d, p);
  }

  void check() const { check_as("adam"); }

  /// The same for a rule that has these hyper-parameters under its own name.
  void check_as(char const* rule) const {
    detail::expects_fraction(rule, "beta1", beta1);
    detail::expects_fraction(rule, "beta2", beta2);
    detail::expects_positive(rule, "eps", eps);
    detail::expects_not_negative(rule, "weight_decay", weight_decay);
  }
};

static_assert(update_rule<adam>);

}  // namespace limber

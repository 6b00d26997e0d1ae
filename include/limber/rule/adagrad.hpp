// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// AdaGrad: a rate per element that falls with the gradients the element has seen.

#include <limber/core/math.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/statistics.hpp>

namespace limber {

/// Diagonal AdaGrad.
///
///     g ← g + λ p
///     s ← s + g²
///     p ← p − η_t g / (√(s₀ + s) + ε)          η_t = η / (1 + (t − 1) γ)
///
/// Units    η in parameter units; ε in gradient units, s₀ in their square; t from 1.
/// State    one moment slot, s, zero before the first update.
/// Choices  As torch.optim.Adagrad, but the slot holds s without the initial accumulator s₀, so that
///          slots start at zero and a reset of moments means what it says: torch's `sum` is s₀ + s.
///          s is limited to the largest finite number (statistics.hpp).
/// Paper    Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic
///          Optimization, JMLR 12, 2011, Figure 1 with ε in place of δ.
struct adagrad {
  static constexpr std::array slots{slot::moment};

  double lr_decay = 0;             ///< γ, ≥ 0; of the rate, by this tensor's own updates
  double weight_decay = 0;         ///< λ, ≥ 0
  double initial_accumulator = 0;  ///< s₀, ≥ 0
  double eps = 1e-10;              ///< ε, > 0

  template <class T>
  struct coefficients {
    T step;     ///< −η_t
    T decay;    ///< λ
    T initial;  ///< s₀
    T eps;
  };

  /// @pre f.t ≥ 1
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    double const slower = math::add(1.0, math::mul(static_cast<double>(f.t - 1), lr_decay));
    return {static_cast<T>(-f.rate / slower), static_cast<T>(weight_decay),
            static_cast<T>(initial_accumulator), static_cast<T>(eps)};
  }

  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g, T& s) noexcept {
    g = math::fma(c.decay, p, g);
    s = limited(math::fma(g, g, s));
    T const root = math::sqrt(limited(math::add(c.initial, s)));
    return math::fma(c.step, math::div(g, math::add(root, c.eps)), p);
  }

  void check() const {
    detail::expects_not_negative("adagrad", "lr_decay", lr_decay);
    detail::expects_not_negative("adagrad", "weight_decay", weight_decay);
    detail::expects_not_negative("adagrad", "initial_accumulator", initial_accumulator);
    detail::expects_positive("adagrad", "eps", eps);
  }
};

static_assert(update_rule<adagrad>);

}  // namespace limber

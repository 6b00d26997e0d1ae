// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// AdamW: Adam with decoupled weight decay.

#include <limber/core/math.hpp>
#include <limber/rule/adam.hpp>
#include <limber/rule/rule.hpp>

namespace limber {

/// Adam whose weight decay acts on the parameter and never enters the moments.
///
///     m ← β₁ m + (1 − β₁) g
///     v ← β₂ v + (1 − β₂) g²
///     p ← (1 − η λ) p − η m̂ / (√v̂ + ε)          m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)
///
/// Units    η in parameter units per step; λ per step, times η; t counts this tensor's updates from 1.
/// State    two moment slots, m and v, zero before the first update.
/// Choices  ε outside the root and after bias correction, and λ times η, as in torch.optim.AdamW; the
///          paper multiplies λ by the schedule's factor alone. 1 − η λ is never formed: in float it
///          rounds to a multiple of 6e-8, a bias that adds up over the steps.
/// Paper    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019,
///          arXiv:1711.05101, Algorithm 2.
struct adamw {
  static constexpr std::array slots{slot::moment, slot::moment};

  double beta1 = 0.9;          ///< decay of m, in [0, 1)
  double beta2 = 0.999;        ///< decay of v, in [0, 1)
  double eps = 1e-8;           ///< ε, > 0
  double weight_decay = 0.01;  ///< λ, ≥ 0

  template <class T>
  struct coefficients {
    adam::coefficients<T> plain;
    T shrink;  ///< −η λ
  };

  /// @pre f.t ≥ 1
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    adam const plain{.beta1 = beta1, .beta2 = beta2, .eps = eps};
    return {plain.at<T>(f), static_cast<T>(-f.rate * weight_decay)};
  }

  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g, T& m, T& v) noexcept {
    T const d = adam::normalised(c.plain, g, m, v);
    return math::fma(c.shrink, p, math::fma(c.plain.step, d, p));
  }

  void check() const { adam{beta1, beta2, eps, weight_decay}.check_as("adamw"); }
};

static_assert(update_rule<adamw>);

}  // namespace limber

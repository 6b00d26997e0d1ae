// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Lion: every element moves by exactly the rate, in the direction of a momentum.

#include <limber/core/math.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/statistics.hpp>

namespace limber {

/// The sign of an interpolated momentum, with decoupled weight decay.
///
///     d = sign(β₁ m + (1 − β₁) g)          sign(0) = 0
///     p ← (1 − η λ) p − η d
///     m ← β₂ m + (1 − β₂) g
///
/// Units    η in parameter units per step, 3 to 10 times smaller than Adam's; λ per step, times η.
/// State    one moment slot, m, zero before the first update.
/// Paper    Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023,
///          arXiv:2302.06675, Program 1 and Algorithm 2.
struct lion {
  static constexpr std::array slots{slot::moment};

  double beta1 = 0.9;       ///< share of m in the direction, in [0, 1)
  double beta2 = 0.99;      ///< decay of m, in [0, 1)
  double weight_decay = 0;  ///< λ, ≥ 0

  template <class T>
  struct coefficients {
    average_weights<T> direction, m;
    T step;    ///< −η
    T shrink;  ///< −η λ
  };

  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    return {average_of<T>(beta1), average_of<T>(beta2), static_cast<T>(-f.rate),
            static_cast<T>(-f.rate * weight_decay)};
  }

  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g, T& m) noexcept {
    T const d = moving_average(c.direction, m, g);
    m = moving_average(c.m, m, g);
    T const sign = math::is_zero(d) ? T{0} : math::copysign(T{1}, d);
    return math::fma(c.shrink, p, math::fma(c.step, sign, p));
  }

  void check() const {
    detail::expects_fraction("lion", "beta1", beta1);
    detail::expects_fraction("lion", "beta2", beta2);
    detail::expects_not_negative("lion", "weight_decay", weight_decay);
  }
};

static_assert(update_rule<lion>);

}  // namespace limber

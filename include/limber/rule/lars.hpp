// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// LARS: momentum with a rate per tensor that follows the ratio of its norm to its gradient's.

#include <limber/core/math.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/statistics.hpp>

namespace limber {

/// Layer-wise adaptive rate scaling.
///
///     r = τ ‖p‖ / (‖g‖ + λ ‖p‖)          1 if ‖p‖ or ‖g‖ is 0
///     u ← μ u + η r (g + λ p)
///     p ← p − u
///
/// Shapes   norms are over one tensor, of its value before the update and of its averaged gradient.
/// Units    η is a factor on r, of the order of 1 to 30 rather than 0.1; λ per step, times η r.
/// State    one moment slot, u, zero before the first update; none when momentum is 0.
/// Choices  Inside form, as in the paper and its Caffe code. There is no momentum correction: r changes
///          with the rate, and the paper keeps what u holds. Biases and gains belong in a group with
///          another rule, as there.
/// Paper    You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks,
///          arXiv:1708.03888, Algorithm 1.
struct lars {
  static constexpr std::array slots{slot::moment};
  static constexpr bool value_norm = true;

  double momentum = 0.9;             ///< μ, in [0, 1)
  double weight_decay = 0;           ///< λ, ≥ 0
  double trust_coefficient = 0.001;  ///< τ, > 0

  template <class T>
  struct coefficients {
    T momentum;
    T decay;  ///< λ
    T trust;  ///< τ
    T rate;   ///< η
    T step;   ///< η r
  };

  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    return {static_cast<T>(momentum), static_cast<T>(weight_decay), static_cast<T>(trust_coefficient),
            static_cast<T>(f.rate), static_cast<T>(f.rate)};
  }

  template <class T>
  [[nodiscard]] static LIMBER_HD coefficients<T> refine(coefficients<T> c, norms<T> n) noexcept {
    bool const defined = !math::is_zero(n.value) && !math::is_zero(n.gradient);
    T const total = math::fma(c.decay, n.value, n.gradient);
    T const ratio = defined ? math::div(math::mul(c.trust, n.value), total) : T{1};
    c.step = math::mul(c.rate, ratio);
    return c;
  }

  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g, T& u) noexcept {
    u = math::fma(c.momentum, u, math::mul(c.step, math::fma(c.decay, p, g)));
    return math::sub(p, u);
  }

  /// Without momentum: the same, with a buffer that nobody keeps.
  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g) noexcept {
    T u = 0;
    return update(c, p, g, u);
  }

  [[nodiscard]] LIMBER_HD constexpr int slot_count() const noexcept { return momentum == 0 ? 0 : 1; }

  void check() const {
    detail::expects_fraction("lars", "momentum", momentum);
    detail::expects_not_negative("lars", "weight_decay", weight_decay);
    detail::expects_positive("lars", "trust_coefficient", trust_coefficient);
  }
};

static_assert(update_rule<lars> && uses_norms<lars>);

}  // namespace limber

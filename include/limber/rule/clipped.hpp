// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Clipping by the global norm, around any rule.

#include <limber/core/math.hpp>
#include <limber/rule/descent.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/wrapper.hpp>

namespace limber {

/// Any rule, fed a gradient whose norm over all tensors of the optimizer is limited.
///
///     g ← g · min(1, C / ‖g‖)          ‖g‖ = √(Σ g²) over all tensors
///
///     clipped{sgd{.momentum = 0.9}, 1.0}
///
/// State    the inner rule's.
/// Errors   check() throws for a max_norm that is not > 0 or not in the range of float.
/// Choices  Nothing is added to the norm (PyTorch adds 1e-6), so a gradient within the limit passes
///          bit for bit. The inner rule's `refine` sees the norms after clipping. Gradients that are
///          not finite never reach a rule.
/// Paper    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks,
///          ICML 2013, Algorithm 1.
template <update_rule R>
struct clipped {
  static constexpr auto slots = R::slots;
  static constexpr bool value_norm = needs_value_norm<R>;
  static constexpr std::size_t slots_spared = limber::slots_spared<R>;
  static constexpr int master_slot = detail::master_slot_behind<R>(0);

  R inner{};            ///< the rule that sees the clipped gradient
  double max_norm = 1;  ///< limit of ‖g‖ over all tensors, > 0

  template <class T>
  struct coefficients {
    coefficients_of<R, T> inner;
    T max_norm;
    T scale;
  };

  LIMBER_NO_EXEC_CHECK
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    return {inner.template at<T>(f), static_cast<T>(max_norm), T{1}};
  }

  template <class T>
  [[nodiscard]] static LIMBER_HD coefficients<T> refine(coefficients<T> c, norms<T> n) noexcept {
    if (math::magnitude_bits(n.total) > math::magnitude_bits(c.max_norm)) {
      c.scale = math::div(c.max_norm, n.total);
      // A tensor's norm is at most the total; this order also holds where both have overflowed to ∞.
      n.gradient = math::min(c.max_norm, math::mul(n.gradient, c.scale));
      n.total = c.max_norm;
    }
    if constexpr (uses_norms<R>) c.inner = R::refine(c.inner, n);
    return c;
  }

  template <class T, class... S>
    requires detail::updates_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g, S&... slot) noexcept {
    return R::update(c.inner, p, math::mul(c.scale, g), slot...);
  }

  template <class T, class... S>
    requires detail::directs_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T direction(coefficients<T> const& c, T p, T g, S&... slot) noexcept {
    return R::direction(c.inner, p, math::mul(c.scale, g), slot...);
  }

  template <class T>
    requires two_pass<R>
  [[nodiscard]] static LIMBER_HD coefficients<T> refine_direction(coefficients<T> c, norms<T> n) noexcept {
    c.inner = R::refine_direction(c.inner, n);
    return c;
  }

  template <class T, class... S>
    requires detail::applies_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T apply(coefficients<T> const& c, T p, T d, S&... slot) noexcept {
    return R::apply(c.inner, p, d, slot...);
  }

  [[nodiscard]] LIMBER_HD constexpr int slot_count() const noexcept requires detail::counts_slots<R> {
    return slots_used(inner);
  }

  [[nodiscard]] LIMBER_HD constexpr rounding rounding_at(i64 t) const noexcept {
    return rounding_of(inner, t);
  }

  void check() const {
    detail::expects_positive("clipped", "max_norm", max_norm);
    limber::check(inner);
  }
};

template <update_rule R>
clipped(R, double) -> clipped<R>;

static_assert(update_rule<clipped<descent>> && uses_norms<clipped<descent>>);

}  // namespace limber

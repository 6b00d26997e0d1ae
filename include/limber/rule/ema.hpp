// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A moving average of the model beside it, around any rule.

#include <limber/rule/descent.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/statistics.hpp>
#include <limber/rule/wrapper.hpp>

namespace limber {

/// Any rule, and an exponential moving average of the parameters it makes.
///
///     p ← the inner rule's step
///     e ← d e + (1 − d) p
///
///     ema{adamw{}, 0.999}
///
/// State    one weight slot, e, in front of the inner rule's slots; starts as a copy of the parameter.
/// Units    d per update: the average looks back about 1 / (1 − d) updates.
/// Choices  e averages p as computed, before it is rounded to the tensor's type. The model itself is
///          the same, bit for bit, as without the average. d is constant: no warm-up of the average.
/// Paper    Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM J. Control
///          and Optimization 30, 1992, with exponential weights.
template <update_rule R>
struct ema {
  static constexpr auto slots = detail::weight_and_slots<R>();
  static constexpr bool value_norm = needs_value_norm<R>;
  static constexpr std::size_t slots_spared = limber::slots_spared<R>;
  static constexpr int master_slot = detail::master_slot_behind<R>(1);

  R inner{};             ///< the rule that makes the model
  double decay = 0.999;  ///< d, in [0, 1)

  template <class T>
  struct coefficients {
    coefficients_of<R, T> inner;
    average_weights<T> weights;
  };

  LIMBER_NO_EXEC_CHECK
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    return {inner.template at<T>(f), average_of<T>(decay)};
  }

  template <class T>
    requires uses_norms<R>
  [[nodiscard]] static LIMBER_HD coefficients<T> refine(coefficients<T> c, norms<T> n) noexcept {
    c.inner = R::refine(c.inner, n);
    return c;
  }

  template <class T, class... S>
    requires detail::updates_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g, T& average,
                                          S&... slot) noexcept {
    p = R::update(c.inner, p, g, slot...);
    average = moving_average(c.weights, average, p);
    return p;
  }

  template <class T, class... S>
    requires detail::directs_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T direction(coefficients<T> const& c, T p, T g, T&, S&... slot) noexcept {
    return R::direction(c.inner, p, g, slot...);
  }

  template <class T>
    requires two_pass<R>
  [[nodiscard]] static LIMBER_HD coefficients<T> refine_direction(coefficients<T> c, norms<T> n) noexcept {
    c.inner = R::refine_direction(c.inner, n);
    return c;
  }

  template <class T, class... S>
    requires detail::applies_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T apply(coefficients<T> const& c, T p, T d, T& average,
                                         S&... slot) noexcept {
    p = R::apply(c.inner, p, d, slot...);
    average = moving_average(c.weights, average, p);
    return p;
  }

  [[nodiscard]] LIMBER_HD constexpr int slot_count() const noexcept requires detail::counts_slots<R> {
    return 1 + slots_used(inner);
  }

  [[nodiscard]] LIMBER_HD constexpr rounding rounding_at(i64 t) const noexcept {
    return rounding_of(inner, t);
  }

  void check() const {
    detail::expects_fraction("ema", "decay", decay);
    limber::check(inner);
  }
};

template <update_rule R>
ema(R, double) -> ema<R>;

static_assert(update_rule<ema<descent>> && !uses_norms<ema<descent>>);

}  // namespace limber

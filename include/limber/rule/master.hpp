// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A model in higher precision behind one in 16 bits, around any rule.

#include <limber/rule/descent.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/wrapper.hpp>

#include <cstdint>

namespace limber {

/// Any rule, working on a copy of the model in its own arithmetic type.
///
///     w ← the inner rule's step from w        w in float, for a bf16 or f16 parameter
///     p ← round(w)
///
///     master{adamw{}}    master{sgd{.momentum = 0.9}, true, 7}
///
/// State    one weight slot, w, in front of the inner rule's slots; starts as a copy of the parameter.
///          It is the model: norms are of w, and w is what is merged, averaged and saved.
/// Choices  `update` returns w unrounded: the executor rounds when it stores p, to nearest even, or
///          stochastically with bits keyed by (seed, t, index of the element in the whole list).
///          Whatever was written to p from outside is lost at the next update; write w too.
///          A master of a master is refused at compile time.
/// Paper    Micikevicius et al., Mixed Precision Training, ICLR 2018, arXiv:1710.03740, §3.1.
template <update_rule R>
  requires(!has_master<R>)
struct master {
  static constexpr auto slots = detail::weight_and_slots<R>();
  static constexpr int master_slot = 0;
  static constexpr bool value_norm = needs_value_norm<R>;
  static constexpr std::size_t slots_spared = limber::slots_spared<R>;

  R inner{};                ///< the rule that makes the model
  bool stochastic = false;  ///< how the parameter is rounded when it is stored
  std::uint64_t seed = 0;   ///< of stochastic rounding

  template <class T>
  struct coefficients {
    coefficients_of<R, T> inner;
  };

  LIMBER_NO_EXEC_CHECK
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    return {inner.template at<T>(f)};
  }

  template <class T>
    requires uses_norms<R>
  [[nodiscard]] static LIMBER_HD coefficients<T> refine(coefficients<T> c, norms<T> n) noexcept {
    return {R::refine(c.inner, n)};
  }

  template <class T, class... S>
    requires detail::updates_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T, T g, T& w, S&... slot) noexcept {
    w = R::update(c.inner, w, g, slot...);
    return w;
  }

  template <class T, class... S>
    requires detail::directs_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T direction(coefficients<T> const& c, T, T g, T& w, S&... slot) noexcept {
    return R::direction(c.inner, w, g, slot...);
  }

  template <class T>
    requires two_pass<R>
  [[nodiscard]] static LIMBER_HD coefficients<T> refine_direction(coefficients<T> c, norms<T> n) noexcept {
    return {R::refine_direction(c.inner, n)};
  }

  template <class T, class... S>
    requires detail::applies_with<R, T, S...>
  [[nodiscard]] static LIMBER_HD T apply(coefficients<T> const& c, T, T d, T& w, S&... slot) noexcept {
    w = R::apply(c.inner, w, d, slot...);
    return w;
  }

  [[nodiscard]] LIMBER_HD constexpr int slot_count() const noexcept requires detail::counts_slots<R> {
    return 1 + slots_used(inner);
  }

  [[nodiscard]] LIMBER_HD constexpr rounding rounding_at(i64 t) const noexcept {
    return stochastic ? rounding{true, seed, static_cast<std::uint64_t>(t)} : rounding{};
  }

  void check() const { limber::check(inner); }
};

template <update_rule R>
master(R, bool = false, std::uint64_t = 0) -> master<R>;

static_assert(update_rule<master<descent>> && has_master<master<descent>>);

}  // namespace limber

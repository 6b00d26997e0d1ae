// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A rule's step as functors for an executor: unscale, clip, decay, update, in one pass.

#include <limber/core/math.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/wrapper.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace limber::detail {

/// p ← R(p, scale · g, slots…); where the gradient is writable it is zeroed in the same pass.
template <update_rule R, class T>
struct update_element {
  coefficients_of<R, T> c;
  T scale;

  template <class G, class... S>
  LIMBER_HD void operator()(T& p, G& g, S&... slots) const noexcept {
    T const x = math::mul(scale, g);
    if constexpr (!std::is_const_v<G>) g = T(0);
    p = R::update(c, p, x, slots...);
  }
};

/// g ← direction of a two-pass rule, returned for its norm.
template <update_rule R, class T>
struct direct_element {
  coefficients_of<R, T> c;
  T scale;

  template <class... S>
  LIMBER_HD T operator()(T& g, T const& p, S&... slots) const noexcept {
    g = R::direction(c, p, math::mul(scale, g), slots...);
    return g;
  }
};

/// p ← what a two-pass rule makes of its direction; the direction is zeroed.
template <update_rule R, class T>
struct apply_element {
  coefficients_of<R, T> c;

  template <class... S>
  LIMBER_HD void operator()(T& p, T& direction, S&... slots) const noexcept {
    p = R::apply(c, p, direction, slots...);
    direction = T(0);
  }
};

/// Everything a rule's step reads besides tensors: coefficients per tensor, norms and the scale, in
/// memory, so that a device can read them without the host.
template <update_rule R>
struct step_facts {
  coefficients_of<R, float> const* narrow = nullptr;
  coefficients_of<R, double> const* wide = nullptr;
  double const* value_root = nullptr;  ///< ‖w‖ per tensor; null unless the rule asks for it
  double const* gradient_root = nullptr;  ///< ‖g‖ per tensor before `scale`; ‖direction‖ in the second pass
  double total_root = 0;                  ///< ‖g‖ of all, before `scale`
  double scale = 1;

  template <class T>
  [[nodiscard]] LIMBER_HD coefficients_of<R, T> coefficients(i64 t) const noexcept {
    if constexpr (std::is_same_v<T, double>)
      return wide[t];
    else
      return narrow[t];
  }

  template <class T>
  [[nodiscard]] LIMBER_HD norms<T> norms_of(i64 t, T by) const noexcept {
    return {value_root != nullptr ? static_cast<T>(value_root[t]) : T(0),
            math::mul(by, static_cast<T>(gradient_root[t])), math::mul(by, static_cast<T>(total_root))};
  }

  /// Coefficients after the rule has seen the gradient's norms.
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients_of<R, T> refined(i64 t) const noexcept {
    if constexpr (uses_norms<R>)
      return R::refine(coefficients<T>(t), norms_of<T>(t, static_cast<T>(scale)));
    else
      return coefficients<T>(t);
  }
};

/// Makes update_element for each tensor.
template <update_rule R>
struct update_source {
  step_facts<R> facts;
  template <class T>
  [[nodiscard]] LIMBER_HD update_element<R, T> at(i64 t) const noexcept {
    return {facts.template refined<T>(t), static_cast<T>(facts.scale)};
  }
};

/// Makes direct_element for each tensor.
template <update_rule R>
struct direct_source {
  step_facts<R> facts;
  template <class T>
  [[nodiscard]] LIMBER_HD direct_element<R, T> at(i64 t) const noexcept {
    return {facts.template refined<T>(t), static_cast<T>(facts.scale)};
  }
};

/// Makes apply_element for each tensor; `direction` holds the norms of the directions, unscaled.
template <update_rule R>
struct apply_source {
  step_facts<R> facts;
  double const* direction_root = nullptr;
  template <class T>
  [[nodiscard]] LIMBER_HD apply_element<R, T> at(i64 t) const noexcept {
    norms<T> n = facts.template norms_of<T>(t, static_cast<T>(facts.scale));
    n.gradient = static_cast<T>(direction_root[t]);
    return {R::refine_direction(facts.template refined<T>(t), n)};
  }
};

template <std::size_t>
using a_float = float;

/// True if R can be called with as many slots as there are indices.
template <class R, std::size_t... J>
[[nodiscard]] constexpr bool takes_slots(std::index_sequence<J...>) noexcept {
  return updates_with<R, float, a_float<J>...> || directs_with<R, float, a_float<J>...>;
}

}  // namespace limber::detail

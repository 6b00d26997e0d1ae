// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A rule's step as functors for an executor: unscale, clip, decay, update, in one pass.

#include <limber/core/math.hpp>
#include <limber/fuse/norm_report.hpp>
#include <limber/fuse/rule_counters.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/wrapper.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace limber::detail {

/// g as it is, for its norm, and the model beside it for its own.
struct gradient_and_value {
  template <class T>
  [[nodiscard]] LIMBER_HD two<T> operator()(T const& g, T const& w) const noexcept {
    return {g, w};
  }
};

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

/// g ← direction of a two-pass rule, returned for its norm, and the model if the rule wants its norm.
template <update_rule R, class T>
struct direct_element {
  coefficients_of<R, T> c;
  T scale;

  template <class... S>
  LIMBER_HD auto operator()(T& g, T const& p, S&... slots) const noexcept {
    T const w = model(p, slots...);
    g = R::direction(c, p, math::mul(scale, g), slots...);
    if constexpr (needs_value_norm<R>)
      return two<T>{g, w};
    else
      return g;
  }

 private:
  template <class... S>
  [[nodiscard]] static LIMBER_HD T model(T const& p, [[maybe_unused]] S&... slots) noexcept {
    if constexpr (has_master<R>) {
      T w = p;
      int k = 0;
      ((w = k++ == R::master_slot ? slots : w), ...);
      return w;
    } else {
      return p;
    }
  }
};

/// p ← what a two-pass rule makes of its direction; the direction is zeroed if `Zero`.
template <update_rule R, class T, bool Zero>
struct apply_element {
  coefficients_of<R, T> c;

  template <class... S>
  LIMBER_HD void operator()(T& p, T& direction, S&... slots) const noexcept {
    T const d = direction;
    if constexpr (Zero) direction = T(0);
    p = R::apply(c, p, d, slots...);
  }
};

/// Instead of an update that is dropped: only the gradient is zeroed, where it is writable and `Zero`.
template <bool Zero>
struct leave_element {
  template <class T, class G, class... S>
  LIMBER_HD void operator()(T&, [[maybe_unused]] G& g, S&...) const noexcept {
    if constexpr (Zero && !std::is_const_v<G>) g = G(0);
  }
};

/// Everything a rule's step reads besides tensors, in executor-side memory: kernels need no host.
template <update_rule R>
struct step_facts {
  coefficients_of<R, float> const* narrow = nullptr;
  coefficients_of<R, double> const* wide = nullptr;
  i64 const* index = nullptr;  ///< the part's tensor → the updater's, which norms are counted by
  hyper_block const* hyper = nullptr;
  norm_facts gradient{};  ///< before `scale`
  norm_facts value{};     ///< of the model; only for one-pass rules that need it

  template <class T>
  [[nodiscard]] LIMBER_HD coefficients_of<R, T> coefficients(i64 t) const noexcept {
    if constexpr (std::is_same_v<T, double>)
      return wide[t];
    else
      return narrow[t];
  }

  template <class T>
  [[nodiscard]] LIMBER_HD norms<T> norms_of(i64 t) const noexcept {
    T const by = hyper->scale_as<T>();
    T const w = value.tensors > 0 ? value.of<T>(index[t]).root : T(0);
    return {w, math::mul(by, gradient.of<T>(index[t]).root), math::mul(by, gradient.total<T>().root)};
  }

  /// Coefficients after the rule has seen the gradient's norms.
  template <class T>
  [[nodiscard]] LIMBER_HD coefficients_of<R, T> refined(i64 t) const noexcept {
    if constexpr (uses_norms<R>)
      return R::refine(coefficients<T>(t), norms_of<T>(t));
    else
      return coefficients<T>(t);
  }

  /// True if this update must change nothing.
  [[nodiscard]] LIMBER_HD bool skips() const noexcept { return hyper->hold != 0 || !gradient.finite(); }
};

/// Makes update_element for each tensor.
template <update_rule R>
struct update_source {
  step_facts<R> facts;
  template <class T>
  [[nodiscard]] LIMBER_HD update_element<R, T> at(i64 t) const noexcept {
    return {facts.template refined<T>(t), facts.hyper->template scale_as<T>()};
  }
  [[nodiscard]] LIMBER_HD bool skips() const noexcept { return facts.skips(); }
  [[nodiscard]] LIMBER_HD leave_element<true> otherwise() const noexcept { return {}; }
};

/// Makes direct_element for each tensor.
template <update_rule R>
struct direct_source {
  step_facts<R> facts;
  template <class T>
  [[nodiscard]] LIMBER_HD direct_element<R, T> at(i64 t) const noexcept {
    return {facts.template refined<T>(t), facts.hyper->template scale_as<T>()};
  }
  [[nodiscard]] LIMBER_HD bool skips() const noexcept { return facts.skips(); }
};

/// A source that was asked before whether it skips, and does not.
template <class Source>
struct unskipped {
  Source source;
  template <class T>
  [[nodiscard]] LIMBER_HD auto at(i64 t) const noexcept {
    return source.template at<T>(t);
  }
};

/// Makes apply_element for each tensor; `direction` and `value` are norms over the part's tensors, of
/// the directions and of the model before the step.
template <update_rule R, bool Zero>
struct apply_source {
  step_facts<R> facts;
  norm_facts direction{};
  norm_facts value{};
  template <class T>
  [[nodiscard]] LIMBER_HD apply_element<R, T, Zero> at(i64 t) const noexcept {
    norms<T> n = facts.template norms_of<T>(t);
    n.gradient = direction.of<T>(t).root;
    if constexpr (needs_value_norm<R>) n.value = value.of<T>(t).root;
    return {R::refine_direction(facts.template refined<T>(t), n)};
  }
  [[nodiscard]] LIMBER_HD bool skips() const noexcept { return facts.skips(); }
  [[nodiscard]] LIMBER_HD leave_element<Zero> otherwise() const noexcept { return {}; }
};

template <std::size_t>
using a_float = float;

/// True if R can be called with as many slots as there are indices.
template <class R, std::size_t... J>
[[nodiscard]] constexpr bool takes_slots(std::index_sequence<J...>) noexcept {
  return updates_with<R, float, a_float<J>...> || directs_with<R, float, a_float<J>...>;
}

}  // namespace limber::detail

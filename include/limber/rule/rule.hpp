// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The contract of an update rule: what every rule in this room, and a user's own, must say.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/math.hpp>
#include <limber/core/norm.hpp>
#include <limber/core/random.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

namespace limber {

/// What a rule may know of a step. Evaluated once per step and tensor, in double.
struct update_facts {
  i64 t = 1;                 ///< updates this tensor's state has seen, this one included: from 1
  double rate = 0;           ///< η of this update
  double previous_rate = 0;  ///< η of this state's update before; equal to `rate` at t = 1
};

/// An update rule: a small value with its hyper-parameters as members.
///
///     static constexpr std::array slots{slot::moment, …};          // at most; may be std::array<slot, 0>
///     template <class T> auto at(update_facts) const;              // → coefficients of T, in double
///     template <class T, class... S>
///     static LIMBER_HD T update(coefficients<T> const&, T p, T g, S&... slot);   // → the new parameter
///
/// `update` is the only arithmetic, and uses only limber::math. Slots start at zero, except `weight`
/// slots, which start as a copy of the parameter.
///
/// `at`, `slot_count` and `rounding_at` are LIMBER_HD in every rule of this room, so that a kernel can
/// compute coefficients: of the same bits as the host's but for the last place of std::pow. A rule with
/// a host-only `at` is a rule as well, for executors that fold coefficients on the host.
///
/// Optional members:
///
///     int slot_count() const;          leading slots really used, ≤ slots.size() (μ = 0 needs none);
///                                      `update` must accept that many
///     void check() const;              throws std::invalid_argument for bad hyper-parameters
///     refine(coefficients<T>, norms<T>)                 see `uses_norms`
///     direction, refine_direction, apply                see `two_pass`
///     static constexpr bool value_norm = true;          refine needs ‖w‖ of the tensor
///     static constexpr int master_slot = 0;             that slot is the model in higher precision; −1: none
///     rounding rounding_at(i64 t) const;                how the parameter is rounded when stored
template <class R>
concept update_rule = std::copyable<R> && requires(R const r, update_facts f) {
  { R::slots.size() } -> std::convertible_to<std::size_t>;
  r.template at<float>(f);
  r.template at<double>(f);
};

/// The per-step constants of rule R in arithmetic type T.
template <update_rule R, class T>
using coefficients_of = decltype(std::declval<R const&>().template at<T>(update_facts{}));

/// A rule that adapts its coefficients to norms (clipping, LARS): `refine` is called once per tensor.
template <class R>
concept uses_norms = update_rule<R> && requires(coefficients_of<R, float> c, norms<float> n) {
  { R::refine(c, n) } -> std::same_as<coefficients_of<R, float>>;
};

/// A rule whose step needs the norm of its own direction (LAMB): first `direction` for every element,
/// then `refine_direction` with norms.gradient = ‖direction‖, then `apply`.
///
///     static T direction(c, T p, T g, S&... slot);    static T apply(c, T p, T direction, S&... slot);
///
/// The value's norm is known to `refine_direction`, not yet to `refine`. A rule may say
/// `static constexpr std::size_t slots_spared = n`: apply has no use for its last n slots and can be
/// called without them.
template <class R>
concept two_pass = update_rule<R> && requires(coefficients_of<R, float> c, norms<float> n) {
  { R::refine_direction(c, n) } -> std::same_as<coefficients_of<R, float>>;
};

/// A rule that needs ‖w‖ per tensor.
template <class R>
inline constexpr bool needs_value_norm = requires {
  requires R::value_norm;
};

/// Slots, from the last, that `apply` of a two-pass rule does without.
template <class R>
inline constexpr std::size_t slots_spared = 0;
template <class R>
  requires requires { R::slots_spared; }
inline constexpr std::size_t slots_spared<R> = R::slots_spared;

/// A rule that keeps the model in higher precision in one of its slots.
template <class R>
concept has_master = update_rule<R> && requires {
  requires R::master_slot >= 0;
};

namespace detail {
// A variable, because device code may read a constexpr variable but not call std::array's size().
template <update_rule R>
inline constexpr int slots_declared = static_cast<int>(R::slots.size());
}  // namespace detail

#if defined(__CUDACC__)
namespace detail {
// Every layer's `at` is called by a __device__ function here: an error, not a warning, if it is host-only.
template <class T, update_rule R>
__device__ void refuse_host_only(R const& r, update_facts f) {
  static_cast<void>(r.template at<T>(f));
  if constexpr (requires { requires update_rule<std::remove_cvref_t<decltype(r.inner)>>; })
    refuse_host_only<T>(r.inner, f);
}
}  // namespace detail

/// r.at<T>(f), for kernels. Does not compile if it, or that of a wrapped rule, is host-only. Does not
/// synchronize.
template <class T, update_rule R>
[[nodiscard]] __device__ coefficients_of<R, T> on_device(R const& r, update_facts f) {
  if (false) detail::refuse_host_only<T>(r, f);
  return r.template at<T>(f);
}
#endif

/// Slots that `r` really uses.
LIMBER_NO_EXEC_CHECK
template <update_rule R>
[[nodiscard]] LIMBER_HD constexpr int slots_used(R const& r) noexcept {
  if constexpr (requires { r.slot_count(); })
    return static_cast<int>(r.slot_count());
  else
    return detail::slots_declared<R>;
}

namespace detail {

// For `check` of a rule; std::invalid_argument names rule, argument and value. NaN is out of every range.

/// x in [0, 1): momentum, β, decay of an average.
inline void expects_fraction(char const* rule, char const* argument, double x) {
  expects(x >= 0 && x < 1, rule, ": ", argument, " must lie in [0, 1), got ", x);
}

/// x ≥ 0 and finite: weight decay.
inline void expects_not_negative(char const* rule, char const* argument, double x) {
  expects(x >= 0 && math::finite(x), rule, ": ", argument, " must be finite and >= 0, got ", x);
}

/// x > 0, and not rounded to 0 or infinity when it becomes a float: ε, trust coefficients.
inline void expects_positive(char const* rule, char const* argument, double x) {
  using float_limits = std::numeric_limits<float>;
  bool const ok = x >= double{float_limits::min()} && x <= double{float_limits::max()};
  expects(ok, rule, ": ", argument, " must be > 0 and in the range of float, got ", x);
}

}  // namespace detail

/// Throws std::invalid_argument if `r` has hyper-parameters out of range.
template <update_rule R>
void check(R const& r) {
  if constexpr (requires { r.check(); }) r.check();
}

/// How `r` rounds the parameter when it stores update t.
LIMBER_NO_EXEC_CHECK
template <update_rule R>
[[nodiscard]] LIMBER_HD constexpr rounding rounding_of(R const& r, i64 t) noexcept {
  if constexpr (requires { r.rounding_at(t); })
    return r.rounding_at(t);
  else
    return {};
}

}  // namespace limber

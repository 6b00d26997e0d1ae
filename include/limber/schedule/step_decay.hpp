// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Decay by a factor: smoothly, in steps at a fixed period, or at milestones.

#include <limber/schedule/elapsed.hpp>

#include <initializer_list>
#include <span>

namespace limber {

namespace detail {
/// factor^(number of periods), which are counted as whole ones or with their fractions.
template <bool whole>
struct decay {
  amount every = not_given;            ///< the period
  double factor = whole ? 0.1 : 0.95;  ///< below 1 the rate falls, above it grows
  checked valid{expects_length(whole ? "step_decay" : "exponential", "every", every, false),
                expects_at_least(whole ? "step_decay" : "exponential", "factor", factor)};

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return math::pow(factor, whole ? passed(p, every).whole : elapsed(p, every.in) / every.value);
  }

  void each_amount(auto f) const { f(every); }
};
}  // namespace detail

/// Multiplies smoothly by `factor` per period, without end.
///
///     η(t) = factor^(t / every)
///
/// @throws std::invalid_argument unless every > 0, factor ≥ 0, and both are finite
using exponential = detail::decay<false>;

/// Multiplies by `factor` after every period.
///
///     η(t) = factor^⌊t / every⌋
///
/// @throws std::invalid_argument unless every > 0, factor ≥ 0, and both are finite
using step_decay = detail::decay<true>;

/// Multiplies by `factor` at each milestone; the update at a milestone already runs at the new rate.
///
///     η(t) = factor^#{i : milestone_i ≤ t}
///
/// Choices  room for 16 milestones inside the object, so that it can be copied to a device; none is rate 1.
/// @throws std::invalid_argument if there are more than 16 milestones, they do not increase or differ in
/// unit,
///         or a milestone or factor is negative, infinite or NaN
struct multi_step {
  static constexpr std::size_t capacity = 16;

  double milestones[capacity] = {};
  int count = 0;
  unit in = unit::steps;
  double factor;

  explicit multi_step(std::span<amount const> at, double by = 0.1);

  multi_step(std::initializer_list<amount> at, double by = 0.1)
      : multi_step(std::span<amount const>(at.begin(), at.size()), by) {}

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const t = detail::elapsed(p, in);
    if (detail::unknown(p, in)) return t;
    double rate = 1;
    for (int i = 0; i < count && t >= milestones[i]; ++i) rate *= factor;
    return rate;
  }

  template <class F>
  void each_amount(F f) const {
    for (int i = 0; i < count; ++i) f(amount{milestones[i], in});
  }
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/schedule/impl/step_decay.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Decay in steps: at a fixed period, or at milestones.

#include <limber/schedule/elapsed.hpp>

#include <cmath>
#include <initializer_list>
#include <span>

namespace limber {

/// Multiplies by `factor` after every period.
///
///     η(t) = factor^⌊t / every⌋
///
/// @throws std::invalid_argument unless every > 0 and factor lies in [0, 1]
struct step_decay {
  amount every{};       ///< the period
  double factor = 0.1;  ///< in [0, 1]
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return std::pow(factor, detail::passed(p, every).whole);
  }

  template <class F>
  void each_amount(F f) const {
    f(every);
  }

 private:
  [[nodiscard]] detail::checked check() const {
    detail::expects_length("step_decay", "every", every);
    detail::expects_0_to_1("step_decay", "factor", factor);
    return {};
  }
};

/// Multiplies by `factor` at each milestone; the update at a milestone already runs at the lower rate.
///
///     η(t) = factor^#{i : milestone_i ≤ t}
///
/// Choices  room for 16 milestones inside the object, so that it can be copied to a device.
/// @throws std::invalid_argument if there are no or more than 16 milestones, they do not increase, differ
///         in unit or are not > 0, or factor lies outside [0, 1]
struct multi_step {
  static constexpr std::size_t capacity = 16;

  double milestones[capacity] = {};
  int count = 0;
  unit in = unit::steps;
  double factor;

  explicit multi_step(std::span<amount const> at, double by = 0.1) : factor(by) {
    expects(!at.empty() && at.size() <= capacity, "multi_step: milestones must number 1 to ", capacity,
            ", got ", at.size());
    detail::expects_0_to_1("multi_step", "factor", by);
    in = at.front().in;
    for (amount const a : at) {
      detail::expects_length("multi_step", "milestone", a);
      expects(a.in == in, "multi_step: milestones must share one unit, got ", name_of(in), " and ",
              name_of(a.in));
      expects(count == 0 || a.value > milestones[count - 1], "multi_step: milestones must increase, got ",
              a.value, " after ", milestones[count == 0 ? 0 : count - 1]);
      milestones[count++] = a.value;
    }
  }

  multi_step(std::initializer_list<amount> at, double by = 0.1)
      : multi_step(std::span<amount const>(at.begin(), at.size()), by) {}

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const t = detail::elapsed(p, in);
    double rate = 1;
    for (int i = 0; i < count && t >= milestones[i]; ++i) rate *= factor;
    return rate;
  }

  template <class F>
  void each_amount(F f) const {
    f(amount{milestones[0], in});
  }
};

static_assert(device_schedule<step_decay> && device_schedule<multi_step>);

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What schedules share: progress measured against an amount, whole steps or samples, checks.

#include <limber/core/error.hpp>
#include <limber/core/math.hpp>
#include <limber/core/progress.hpp>
#include <limber/schedule/schedule.hpp>

#include <limits>

namespace limber::detail {

/// True if progress cannot be measured in `u`: epochs of unknown size. Rates are NaN then.
[[nodiscard]] LIMBER_HD inline bool unknown(progress const& p, unit u) noexcept {
  return u == unit::epochs && p.epoch_size == 0;
}

/// Progress in unit `u`, at least 0 and finite, whatever the progress holds; NaN if it is unknown.
[[nodiscard]] LIMBER_HD inline double elapsed(progress const& p, unit u) noexcept {
  double const t = p.in(u);
  return t <= 0 ? 0 : t >= 0x1p63 ? 0x1p63 : t;
}

/// The part of `length` that is over, in [0, 1] or NaN; 1 for a length of 0.
[[nodiscard]] LIMBER_HD inline double fraction(progress const& p, amount length) noexcept {
  double const x = length.value > 0 ? elapsed(p, length.in) / length.value : 1;
  return x >= 1 ? 1 : x;
}

/// A number of periods, and the time since the last one ended.
struct periods {
  double whole;
  double rest;
};

/// How often `every` has passed. Exact in steps and samples; in epochs a boundary that rounding alone
/// misses counts as reached (0.3 epochs are three times 0.1 epochs).
[[nodiscard]] LIMBER_HD inline periods passed(progress const& p, amount every) noexcept {
  double const t = elapsed(p, every.in), rest = math::fmod(t, every.value);
  double const whole = math::floor((t - rest) / every.value + 0.5);
  if (every.in == unit::epochs && every.value - rest <= t * 0x1p-51) return {whole + 1, 0};
  return {whole, rest};
}

/// a + (b − a) x; exactly a at x = 0, and for b = 1 and a in [0, 1] exactly 1 at x = 1.
[[nodiscard]] LIMBER_HD inline double between(double a, double b, double x) noexcept {
  return math::fma(b - a, x, a);
}

/// The counter that moves when progress is measured in `u`.
[[nodiscard]] LIMBER_HD inline i64 ticks(progress const& p, unit u) noexcept {
  return u == unit::steps ? p.steps : p.samples;
}

/// An amount in whole steps or samples, to the nearest.
[[nodiscard]] LIMBER_HD inline i64 in_ticks(amount length, i64 epoch_size) noexcept {
  // Two roundings on every device: a fused multiply-add could move the boundary by one.
  double const n =
      length.in == unit::epochs ? math::mul(length.value, static_cast<double>(epoch_size)) : length.value;
  return n > 0 ? (n < 0x1p62 ? static_cast<i64>(math::floor(math::add(n, 0.5))) : i64{1} << 62) : 0;
}

/// The length of a finite schedule in whole steps or samples. Those made of parts add up their parts'
/// whole lengths, so that nesting moves no boundary even where an epoch's fraction is no whole sample.
LIMBER_NO_EXEC_CHECK
template <finite_schedule S>
[[nodiscard]] LIMBER_HD i64 length_in_ticks(S const& s, i64 epoch_size) noexcept {
  if constexpr (requires { s.length_in_ticks(epoch_size); }) {
    return s.length_in_ticks(epoch_size);
  } else {
    return in_ticks(s.length, epoch_size);
  }
}

/// Progress as seen by a piece that began `n` steps or samples ago. The ramp moves along, so the
/// effective batch stays what it is.
[[nodiscard]] LIMBER_HD inline progress since(progress p, unit u, i64 n) noexcept {
  if (u == unit::steps) {
    p.steps -= n;
    p.batch.begin -= n;
  } else {
    p.samples -= n;
  }
  return p;
}

/// Calls `f` with every amount that `s` measures progress by, its length included. What a lambda measures by
/// cannot be seen.
template <schedule S, class F>
void each_amount(S const& s, F f) {
  if constexpr (requires { s.each_amount(f); }) {
    s.each_amount(f);
  } else if constexpr (finite_schedule<S>) {
    f(static_cast<amount>(s.length));
  }
}

/// For `each_amount`: refuses another unit than `in`, except of what runs on a clock of its own.
struct same_unit {
  static constexpr bool on_this_clock = true;
  unit in;
  /// @throws std::invalid_argument naming the sequence and both units
  void operator()(amount other) const;
};

/// In the place of `length`, where a schedule has no end.
struct endless {};

/// The last member of an aggregate: its initialiser checks the members before it, one after the other.
struct checked {
  template <class... Checks>
  constexpr checked(Checks...) noexcept {}
};

/// The default of a member that has none.
inline constexpr amount not_given{0, static_cast<unit>(255)};
inline constexpr double no_number = std::numeric_limits<double>::quiet_NaN();

/// @param may_be_0  false for what progress is divided by
/// @throws std::invalid_argument "schedule: argument …" unless a is given, finite and ≥ 0
checked expects_length(char const* schedule, char const* argument, amount a, bool may_be_0 = true);
checked expects_at_least(char const* schedule, char const* argument, double x, double least = 0);
checked expects_above_0(char const* schedule, char const* argument, double x);
checked expects_0_to_1(char const* schedule, char const* argument, double x);
/// For what follows the batch.
checked expects_scaling(char const* schedule, double base_lr, double base_batch, amount warmup);

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/schedule/impl/elapsed.ipp>
#endif

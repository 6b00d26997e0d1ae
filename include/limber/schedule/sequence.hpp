// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One schedule after the other, and schedules that are given an end.

#include <limber/schedule/constant.hpp>
#include <limber/schedule/elapsed.hpp>

#include <type_traits>
#include <utility>

namespace limber {

/// A schedule, or a number, with an end; what makes it a piece that something can follow.
///
///     lasting(5_epochs, 0.1) | cosine(85_epochs)
///
/// After the end, if nothing follows, it goes on as if it had none.
/// @throws std::invalid_argument unless length ≥ 0 and finite
template <schedule S>
struct lasting {
  amount length;
  S part;

  explicit lasting(amount over, S s) : length(over), part(std::move(s)) {
    detail::expects_length("lasting", "length", over);
  }

  LIMBER_NO_EXEC_CHECK
  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const { return static_cast<double>(part(p)); }

  template <class F>
  void each_amount(F f) const {
    f(length);
    detail::each_amount(part, f);
  }
};
template <schedule S>
lasting(amount, S) -> lasting<S>;
lasting(amount, double)->lasting<constant>;

/// `first` until its end, then `rest`, which sees progress since then. Written `first | rest`.
///
///     η(p) = first(p) while t < L,  then rest(p with t − L)
///
/// Units    L is first.length in whole steps or samples, to the nearest, so `rest` starts at exactly 0; a
///          piece that rounds to nothing is skipped. Only the counter of the common unit is moved; the
///          ramp of the batch moves along, so scalings see the batch of now, not of L steps ago.
/// Choices  all pieces measure progress in one unit: how many steps an epoch has depends on the batch.
///          Lengths add up in whole steps or samples, hence (a | b) | c and a | (b | c) have the same bits.
///          A schedule without end cannot have a successor; `lasting` gives it an end. What runs on a clock
///          of its own (`adascale::over`) is not moved, and may have another unit.
/// @throws std::invalid_argument if two amounts among the pieces differ in unit, or if first.length is
///         negative, infinite or NaN
template <finite_schedule A, schedule B>
struct sequence {
  A first;
  B rest;
  /// The sum, where the last piece has an end.
  std::conditional_t<finite_schedule<B>, amount, detail::endless> length{};

  sequence(A a, B b) : first(std::move(a)), rest(std::move(b)) {
    amount const head = first.length;
    detail::expects_at_least("sequence", "length of a piece", head.value);
    each_amount(detail::same_unit{head.in});
    if constexpr (finite_schedule<B>) length = {head.value + amount(rest.length).value, head.in};
  }

  LIMBER_NO_EXEC_CHECK
  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const {
    unit const in = static_cast<amount>(first.length).in;
    if (detail::unknown(p, in)) return p.in(in);
    i64 const end = detail::length_in_ticks(first, p.epoch_size);
    if (detail::ticks(p, in) < end) return static_cast<double>(first(p));
    return static_cast<double>(rest(detail::since(p, in, end)));
  }

  [[nodiscard]] LIMBER_HD i64 length_in_ticks(i64 epoch_size) const noexcept requires finite_schedule<B> {
    i64 const a = detail::length_in_ticks(first, epoch_size), b = detail::length_in_ticks(rest, epoch_size);
    i64 const most = i64{1} << 62;
    return a < most - b ? a + b : most;
  }

  template <class F>
  void each_amount(F f) const {
    detail::each_amount(first, f);
    detail::each_amount(rest, f);
  }
};

template <finite_schedule A, schedule B>
[[nodiscard]] sequence<A, B> operator|(A first, B rest) {
  return {std::move(first), std::move(rest)};
}

/// `first` never ends, so `rest` would never begin; see `lasting`.
template <schedule A, schedule B>
  requires(!finite_schedule<A>)
void operator|(A first, B rest) = delete;

}  // namespace limber

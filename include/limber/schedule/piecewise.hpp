// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Different schedules, or numbers, between given boundaries of one common progress.

#include <limber/schedule/constant.hpp>
#include <limber/schedule/elapsed.hpp>

#include <utility>

namespace limber {

/// `before` until `at`, then `after`; both see the whole progress. Made by `piecewise`.
template <schedule A, schedule B>
struct switched {
  A before;
  amount at;
  B after;

  LIMBER_NO_EXEC_CHECK
  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const {
    double const t = detail::elapsed(p, at.in);
    if (detail::unknown(p, at.in)) return t;
    return t < at.value ? static_cast<double>(before(p)) : static_cast<double>(after(p));
  }

  template <class F>
  void each_amount(F f) const {
    detail::each_amount(before, f);
    f(at);
    detail::each_amount(after, f);
  }
};

namespace detail {
template <class S>
[[nodiscard]] auto piecewise_after(amount, S last) {
  return as_schedule(std::move(last));
}

template <class S, class... More>
[[nodiscard]] auto piecewise_after(amount previous, S before, amount at, More... more) {
  expects_length("piecewise", "boundary", at);
  expects(at.in == previous.in, "piecewise: boundaries must share one unit, got ", name_of(previous.in),
          " and ", name_of(at.in));
  expects(at.value >= previous.value, "piecewise: boundaries must not decrease, got ", at.value, " after ",
          previous.value);
  auto rest = piecewise_after(at, std::move(more)...);
  auto head = as_schedule(std::move(before));
  return switched<decltype(head), decltype(rest)>{std::move(head), at, std::move(rest)};
}
}  // namespace detail

/// Schedules or numbers with the boundaries between them; the update at a boundary is the next piece's.
///
///     piecewise(0.1, 30_epochs, 0.01, 60_epochs, cosine(90_epochs))
///
/// Choices  every piece sees the whole progress; in a sequence (`|`) each sees progress since its start.
///          Boundary 0, or two that are equal: the piece between them is skipped.
/// @throws std::invalid_argument if boundaries are negative or not finite, decrease or differ in unit, or a
///         number is negative, infinite or NaN
template <class S, class... More>
[[nodiscard]] auto piecewise(S first, amount boundary, More... more) {
  static_assert(sizeof...(More) % 2 == 1, "piecewise: a piece, then boundary and piece by turns");
  return detail::piecewise_after(amount{0, boundary.in}, std::move(first), boundary, std::move(more)...);
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What changes the rate of whole schedules: products, also with a number, and limits.

#include <limber/schedule/constant.hpp>
#include <limber/schedule/elapsed.hpp>

#include <type_traits>
#include <utility>

namespace limber {

/// η(p) = min(max(part(p), low), high). Ends where `part` does.
///
/// @throws std::invalid_argument unless 0 ≤ low ≤ high, both finite
template <schedule S>
struct clamp {
  S part;
  double low;
  double high;
  std::conditional_t<finite_schedule<S>, amount, detail::endless> length{};

  clamp(S s, double lowest, double highest) : part(std::move(s)), low(lowest), high(highest) {
    detail::expects_at_least("clamp", "low", lowest);
    detail::expects_at_least("clamp", "high", highest);
    expects(lowest <= highest, "clamp: low must be <= high, got ", lowest, " and ", highest);
    if constexpr (finite_schedule<S>) length = part.length;
  }

  LIMBER_NO_EXEC_CHECK
  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const {
    return math::clamp(static_cast<double>(part(p)), low, high);
  }

  [[nodiscard]] LIMBER_HD i64 length_in_ticks(i64 epoch_size) const noexcept requires finite_schedule<S> {
    return detail::length_in_ticks(part, epoch_size);
  }

  void each_amount(auto f) const { detail::each_amount(part, f); }
};

/// η(p) = a(p) · b(p). Written `a * b` or `0.1 * b`.
///
/// Choices  factors may measure progress in different units. The product ends where its only factor with
///          an end does; of two factors with an end it has none (`lasting` gives it one).
///          `operator*` associates to the right: (a * b) * c and a * (b * c) have one type and the same bits.
template <schedule A, schedule B>
struct product {
  static constexpr bool finite = finite_schedule<A> != finite_schedule<B>;

  A a;
  B b;
  std::conditional_t<finite, amount, detail::endless> length{};

  product(A x, B y) : a(std::move(x)), b(std::move(y)) {
    if constexpr (finite) length = ending().length;
  }

  LIMBER_NO_EXEC_CHECK
  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const {
    return math::mul(static_cast<double>(a(p)), static_cast<double>(b(p)));
  }

  [[nodiscard]] LIMBER_HD i64 length_in_ticks(i64 epoch_size) const noexcept requires finite {
    return detail::length_in_ticks(ending(), epoch_size);
  }

  template <class F>
  void each_amount(F f) const {
    detail::each_amount(a, f);
    detail::each_amount(b, f);
  }

 private:
  [[nodiscard]] LIMBER_HD auto const& ending() const noexcept {
    if constexpr (finite_schedule<A>) {
      return a;
    } else {
      return b;
    }
  }
};

namespace detail {
// Two schedules, or a schedule and a number. One template for all, whose parameters are the operands'
// own types: `operator*(double, B)` would be tried, and be ill-formed, for other people's products.
template <class A, class B>
concept factors = (schedule<A> && (schedule<B> || std::is_arithmetic_v<B>)) ||
                  (std::is_arithmetic_v<A> && schedule<B>);

template <class A, class B>
[[nodiscard]] auto multiply(A a, B b) {
  return product<A, B>(std::move(a), std::move(b));
}

template <class A1, class A2, class B>
[[nodiscard]] auto multiply(product<A1, A2> a, B b) {
  return multiply(std::move(a.a), multiply(std::move(a.b), std::move(b)));
}
}  // namespace detail

/// @throws std::invalid_argument if a number among the two is negative, infinite or NaN
template <class A, class B>
  requires detail::factors<A, B>
[[nodiscard]] auto operator*(A a, B b) {
  return detail::multiply(detail::as_schedule(std::move(a)), detail::as_schedule(std::move(b)));
}

}  // namespace limber

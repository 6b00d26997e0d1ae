// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A schedule kept between two rates.

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
    detail::expects_at_least_0("clamp", "low", lowest);
    detail::expects_at_least_0("clamp", "high", highest);
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

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What rules around rules share.

#include <limber/rule/rule.hpp>

#include <array>
#include <cstddef>

namespace limber::detail {

/// R updates in one pass, with exactly these slots. A wrapper takes as many slots as its rule takes
/// and one of its own; these concepts let a caller ask it for which numbers of slots it can be called.
template <class R, class T, class... S>
concept updates_with = requires(coefficients_of<R, T> const& c, T x, S&... slot) {
  R::update(c, x, x, slot...);
};

/// R updates in two passes, with exactly these slots.
template <class R, class T, class... S>
concept directs_with = requires(coefficients_of<R, T> const& c, T x, S&... slot) {
  R::direction(c, x, x, slot...);
  R::apply(c, x, x, slot...);
};

/// R's second pass takes exactly these slots.
template <class R, class T, class... S>
concept applies_with = requires(coefficients_of<R, T> const& c, T x, S&... slot) {
  R::apply(c, x, x, slot...);
};

/// The number of R's slots depends on its hyper-parameters.
template <class R>
concept counts_slots = requires(R const& r) {
  r.slot_count();
};

/// One more `weight` slot, in front of those of R.
template <update_rule R>
[[nodiscard]] constexpr auto weight_and_slots() noexcept {
  std::array<slot, R::slots.size() + 1> all{slot::weight};
  std::size_t i = 0;
  for (slot const s : R::slots) all[++i] = s;
  return all;
}

/// R's master slot when `before` slots stand in front of R's own; −1 if it has none.
template <update_rule R>
[[nodiscard]] constexpr int master_slot_behind(int before) noexcept {
  if constexpr (has_master<R>)
    return before + R::master_slot;
  else
    return -1;
}

}  // namespace limber::detail

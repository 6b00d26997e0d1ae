// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How many steps at the base batch a schedule takes the coming update for.

#include <limber/schedule/elapsed.hpp>

namespace limber {

namespace detail {
template <class S>
concept has_gain = requires(S const& s, progress const& p) {
  { s.gain(p) } -> std::convertible_to<double>;
};
}  // namespace detail

/// The gain r at progress p: `s.gain(p)` where a schedule has one, of combined schedules that of the part at
/// work (of a product, the product), else 1. A lambda hides what it calls; give your own type a gain.
LIMBER_NO_EXEC_CHECK
template <schedule S>
[[nodiscard]] LIMBER_HD double gain_of([[maybe_unused]] S const& s, [[maybe_unused]] progress const& p) {
  if constexpr (detail::has_gain<S>) {
    return s.gain(p);
  } else if constexpr (requires { requires schedule<decltype(s.part)>; }) {
    return gain_of(s.part, p);
  } else if constexpr (requires { requires schedule<decltype(s.a)> && schedule<decltype(s.b)>; }) {
    return math::mul(gain_of(s.a, p), gain_of(s.b, p));
  } else if constexpr (requires { requires schedule<decltype(s.before)> && schedule<decltype(s.after)>; }) {
    return detail::elapsed(p, s.at.in) < s.at.value ? gain_of(s.before, p) : gain_of(s.after, p);
  } else if constexpr (requires { requires schedule<decltype(s.first)> && schedule<decltype(s.rest)>; }) {
    unit const in = static_cast<amount>(s.first.length).in;
    i64 const end = detail::length_in_ticks(s.first, p.epoch_size);
    return detail::ticks(p, in) < end ? gain_of(s.first, p) : gain_of(s.rest, detail::since(p, in, end));
  } else {
    return 1;
  }
}

}  // namespace limber

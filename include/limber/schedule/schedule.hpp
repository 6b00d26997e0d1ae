// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The contract of a schedule: a rate, or a factor of one, as a pure function of progress.

#include <limber/core/progress.hpp>
#include <limber/core/units.hpp>

#include <concepts>

namespace limber {

/// A pure function of progress, evaluated in double. No state: what it returns for a progress does
/// not depend on what was asked before, so seeking, resuming and nesting cannot change a value.
/// A lambda is a schedule.
template <class S>
concept schedule = std::copy_constructible<S> && requires(S const& s, progress const& p) {
  { s(p) } -> std::convertible_to<double>;
};

/// A schedule with an end; may stand in front of `|`.
template <class S>
concept finite_schedule = schedule<S> && requires(S const& s) {
  { s.length } -> std::convertible_to<amount>;
};

}  // namespace limber

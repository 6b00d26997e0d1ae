// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When something crosses: the first choice of a strategy after what crosses.

#include <limber/core/error.hpp>
#include <limber/core/progress.hpp>

#include <concepts>

namespace limber::sync {

/// Decides whether an exchange is due, from facts that all ranks agree on.
///
/// @param calls_open  calls of step() since the last exchange of this tap, this one included; for a
///                    merge: updates since the last one
template <class W>
concept timing = std::copyable<W> && requires(W const& w, i64 calls_open, progress const& now) {
  { w(calls_open, now) } -> std::convertible_to<bool>;
};

/// Every `period` calls.
struct every {
  i64 period = 1;

  explicit every(i64 p = 1) : period(p) { expects(p >= 1, "every: period must be at least 1, got ", p); }
  [[nodiscard]] bool operator()(i64 calls_open, progress const&) const noexcept {
    return calls_open >= period;
  }
};

/// Every call at first; from the planned point `from` on every `period` calls.
struct every_after {
  amount from{0, unit::steps};
  i64 period = 1;

  every_after(amount f, i64 p) : from(f), period(p) {
    expects(p >= 1, "every_after: period must be at least 1, got ", p);
    expects(f.value >= 0, "every_after: from must not be negative, got ", f.value, " ", name_of(f.in));
  }
  [[nodiscard]] bool operator()(i64 calls_open, progress const& now) const noexcept {
    return calls_open >= period || now.in(from.in) < from.value;
  }
};

static_assert(timing<every> && timing<every_after>);

/// True if every call is due, now and later.
template <timing W>
[[nodiscard]] bool always_due(W const& when) {
  if constexpr (requires { when.period; })
    return when.period == 1;
  else
    return false;
}

/// Calls between exchanges, where that is a constant; else 1, the shortest.
template <timing W>
[[nodiscard]] i64 period_of(W const& when) {
  if constexpr (requires { when.period; })
    return when.period;
  else
    return 1;
}

}  // namespace limber::sync

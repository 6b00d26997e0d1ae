// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When something is communicated: the first choice of a strategy after what it is.

#include <limber/core/box.hpp>
#include <limber/core/error.hpp>
#include <limber/core/progress.hpp>

#include <concepts>

namespace limber::sync {

/// Decides whether an exchange is due, from facts that all ranks agree on.
///
/// @param calls_open  calls of step() since the last exchange of this stage, this one included; for a
///                    merge: updates since the last one
template <class W>
concept timing = requires(W const& w, i64 calls_open, progress const& now) {
  { w(calls_open, now) } -> std::convertible_to<bool>;
}
&&std::copyable<W>;

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

/// Any timing. One that has a member `period` is known to have an exchange every so many calls at least.
class any_timing {
 public:
  template <class W>
    requires(!std::same_as<W, any_timing> && timing<W>)
  any_timing(W when)
      : when_(std::in_place, when), due_([](void const* w, i64 calls, progress const& now) -> bool {
          return (*static_cast<W const*>(w))(calls, now);
        }) {
    if constexpr (requires { when.period; }) period_ = when.period;
    if constexpr (requires { when.from.in == unit::epochs; })
      counts_epochs_ = when.from.in == unit::epochs && when.from.value > 0;
  }

  /// Every so many calls.
  any_timing(i64 calls) : any_timing(every{calls}) {}

  [[nodiscard]] bool operator()(i64 calls_open, progress const& now) const {
    return due_(when_.get(), calls_open, now);
  }
  /// Calls between exchanges, where that is a constant; else 1, the shortest.
  [[nodiscard]] i64 period() const noexcept { return period_ > 0 ? period_ : 1; }
  /// True if it measures progress in epochs.
  [[nodiscard]] bool counts_epochs() const noexcept { return counts_epochs_; }
  /// True if every call is due, now and later.
  [[nodiscard]] bool always() const noexcept { return period_ == 1; }

 private:
  limber::detail::box when_;
  bool (*due_)(void const*, i64, progress const&);
  i64 period_ = 0;
  bool counts_epochs_ = false;
};

}  // namespace limber::sync

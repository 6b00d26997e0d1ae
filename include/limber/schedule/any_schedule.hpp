// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Any schedule as one type.

#include <limber/core/box.hpp>
#include <limber/core/function_ref.hpp>
#include <limber/schedule/constant.hpp>
#include <limber/schedule/elapsed.hpp>
#include <limber/schedule/gain.hpp>

#include <type_traits>
#include <utility>

namespace limber {

namespace detail {

/// What can be asked of a schedule, by functions of its type.
struct schedule_functions {
  double (*rate)(void const*, progress const&);
  double (*gain)(void const*, progress const&);
  void (*each_amount)(void const*, function_ref<void(amount)>);
};
template <class S>
inline constexpr schedule_functions schedule_functions_of{
    [](void const* s, progress const& p) { return static_cast<double>((*static_cast<S const*>(s))(p)); },
    [](void const* s, progress const& p) {
      return static_cast<double>(gain_of(*static_cast<S const*>(s), p));
    },
    [](void const* s, function_ref<void(amount)> f) { each_amount(*static_cast<S const*>(s), f); }};

}  // namespace detail

/// A copy of any schedule, or a number; what an optimizer owns, and what a rate chosen at run time is kept
/// in.
///
///     any_schedule rate = 0.1 * warmup(500_steps);
///     if (decays) rate = rate * cosine(10'000_steps);
///
/// A schedule itself, on the host only, and without an end: `lasting` gives it one.
class any_schedule {
 public:
  /// @throws std::invalid_argument if rate is negative, infinite or NaN
  any_schedule(double rate) : any_schedule(constant(rate)) {}
  template <class S>
    requires(!std::is_same_v<S, any_schedule> && schedule<S>)
  any_schedule(S s) : held_(std::in_place, std::move(s)), functions_(&detail::schedule_functions_of<S>) {}

  [[nodiscard]] double operator()(progress const& p) const { return functions_->rate(held_.get(), p); }
  /// As `gain_of` the schedule it holds.
  [[nodiscard]] double gain(progress const& p) const { return functions_->gain(held_.get(), p); }
  /// Calls f(amount) for every amount that the schedule measures progress by. What a lambda measures by
  /// cannot be seen.
  void each_amount(function_ref<void(amount)> f) const { functions_->each_amount(held_.get(), f); }
  /// True if it measures progress in epochs: `progress::epoch_size` must be known then.
  [[nodiscard]] bool counts_epochs() const {
    bool found = false;
    each_amount([&found](amount a) { found = found || a.in == unit::epochs; });
    return found;
  }

 private:
  detail::box held_;
  detail::schedule_functions const* functions_;
};

}  // namespace limber

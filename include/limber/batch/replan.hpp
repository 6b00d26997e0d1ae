// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When a batch policy wants to be asked again.

#include <limber/batch/plan.hpp>
#include <limber/core/units.hpp>

#include <concepts>
#include <string_view>

namespace limber {

/// A policy that wants to be asked again after every `replan_every`.
template <class P>
concept replans_periodically = batch_policy<P> && requires(P const& policy) {
  { policy.replan_every } -> std::convertible_to<amount>;
};

/// A policy that says itself between which two points of progress it wants to be asked again.
template <class P>
concept replans_at_will = batch_policy<P> && requires(P const& policy, progress const& p) {
  { policy.due(p, p) } -> std::convertible_to<bool>;
};

/// A policy whose plan may change while the workers stay the same. Others are asked at a resize only.
template <class P>
concept replans = replans_periodically<P> || replans_at_will<P>;

/// A policy that measures progress by amounts of its own, beside `replan_every`: each_amount(f) calls
/// f(amount) for every one.
template <class P>
concept measures_progress = batch_policy<P> && requires(P const& policy, void (*f)(amount)) {
  policy.each_amount(f);
};

/// True if `policy` measures progress in epochs: their size must be known then. What a lambda measures by
/// cannot be seen.
template <batch_policy P>
[[nodiscard]] bool counts_epochs(P const& policy) {
  bool found = false;
  if constexpr (measures_progress<P>)
    policy.each_amount([&found](amount a) { found = found || a.in == unit::epochs; });
  if constexpr (replans_periodically<P>)
    found = found || static_cast<amount>(policy.replan_every).in == unit::epochs;
  return found;
}

namespace detail {
/// @throws std::invalid_argument if `in` is epochs, of a size that is not known
inline void expects_known(std::string_view what, unit in, progress const& now) {
  expects(in != unit::epochs || now.epoch_size != 0, what, " counts epochs, but epoch_size was not given");
}
}  // namespace detail

/// True if a multiple of `every` lies in (then, now].
///
///     ⌊now / every⌋ > ⌊then / every⌋
///
/// Units    those of `every`; epochs are samples / epoch_size.
/// Choices  multiples of the period since the start of training, not since the last plan: a resume or a
///          resize in between moves no boundary. In fractions of an epoch a boundary that rounding misses
///          is seen one update later.
/// @throws std::invalid_argument unless every > 0 and finite, and the size of an epoch is known if it counts
[[nodiscard]] inline bool is_due(amount every, progress const& then, progress const& now) {
  expects(math::finite(every.value) && every.value > 0, "replan_every must be finite and > 0, got ",
          every.value, " ", name_of(every.in));
  detail::expects_known("replan_every", every.in, now);
  return math::floor(now.in(every.in) / every.value) > math::floor(then.in(every.in) / every.value);
}

/// True if `policy` wants to be asked at `now`, having been considered last at `then`.
///
/// Cost     no allocation: it may be called after each update.
/// @throws std::invalid_argument unless the policy's period is > 0 and finite
template <batch_policy P>
[[nodiscard]] bool is_due(P const& policy, progress const& then, progress const& now) {
  if constexpr (replans_at_will<P>) {
    return policy.due(then, now);
  } else if constexpr (replans_periodically<P>) {
    return is_due(static_cast<amount>(policy.replan_every), then, now);
  } else {
    return false;
  }
}

}  // namespace limber

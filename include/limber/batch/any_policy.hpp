// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Any batch policy as one type, for options.

#include <limber/batch/increase_instead_of_decay.hpp>
#include <limber/batch/plan.hpp>
#include <limber/batch/replan.hpp>

#include <concepts>
#include <cstddef>
#include <functional>
#include <utility>

namespace limber {

/// Holds a policy, and what can be asked of its type.
class any_policy {
 public:
  any_policy(std::nullptr_t) {}
  template <class P>
    requires(!std::same_as<P, any_policy> && batch_policy<P>)
  any_policy(P policy)
      : due_([policy](progress const& then, progress const& now) { return is_due(policy, then, now); }),
        plan_(std::move(policy)),
        asks_again_(replans<P>),
        scales_(scales_batch_with_schedule<P>) {}

  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const { return plan_(facts); }
  /// True if the policy wants to be asked at `now`, having been considered last at `then`.
  [[nodiscard]] bool due(progress const& then, progress const& now) const { return due_(then, now); }
  /// False for policies that are asked when workers come or go, and never else.
  [[nodiscard]] bool asks_again() const noexcept { return asks_again_; }
  /// The batch grows where the rate would decay: a rate that follows the batch would undo it.
  [[nodiscard]] bool scales_batch() const noexcept { return scales_; }
  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(plan_); }

 private:
  std::function<bool(progress const&, progress const&)> due_;
  std::function<batch_plan(batch_facts const&)> plan_;
  bool asks_again_ = false;
  bool scales_ = false;
};

static_assert(batch_policy<any_policy>);

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Any batch policy as one type, for options.

#include <limber/batch/plan.hpp>
#include <limber/core/box.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace limber {

/// Holds a copy of a policy, and what can be asked of its type; empty if made of nullptr or moved from.
class any_policy {
 public:
  any_policy(std::nullptr_t) noexcept {}
  template <class P>
    requires(!std::is_same_v<P, any_policy> && batch_policy<P>)
  any_policy(P policy)
      : asks_again_(replans<P>),
        scales_batch_(scales_batch_with_schedule<P>),
        counts_epochs_(limber::counts_epochs(policy)),
        held_(std::in_place, std::move(policy)),
        plan_([](void const* p, batch_facts const& facts) { return (*static_cast<P const*>(p))(facts); }),
        due_([](void const* p, progress const& then, progress const& now) {
          return is_due(*static_cast<P const*>(p), then, now);
        }) {}

  /// @pre it is not empty
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const { return plan_(held_.get(), facts); }
  /// True if the policy wants to be asked at `now`, having been considered last at `then`. @pre it is not
  /// empty
  [[nodiscard]] bool due(progress const& then, progress const& now) const {
    return due_(held_.get(), then, now);
  }
  /// False for policies that are asked when workers come or go, and never else.
  [[nodiscard]] bool asks_again() const noexcept { return *this && asks_again_; }
  /// The batch grows where the rate would decay: a rate that follows the batch would undo it.
  [[nodiscard]] bool scales_batch() const noexcept { return *this && scales_batch_; }
  /// It measures progress in epochs: `progress::epoch_size` must be known then.
  [[nodiscard]] bool counts_epochs() const { return *this && counts_epochs_; }
  [[nodiscard]] explicit operator bool() const noexcept { return held_.get() != nullptr; }

 private:
  bool asks_again_ = false, scales_batch_ = false, counts_epochs_ = false;
  detail::box held_;
  batch_plan (*plan_)(void const*, batch_facts const&) = nullptr;
  bool (*due_)(void const*, progress const&, progress const&) = nullptr;
};

}  // namespace limber

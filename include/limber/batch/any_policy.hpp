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

namespace detail {

/// What can be asked of a policy, by functions of its type, and what its type says.
struct policy_functions {
  batch_plan (*plan)(void const*, batch_facts const&);
  bool (*due)(void const*, progress const&, progress const&);
  bool (*counts_epochs)(void const*);
  bool asks_again, scales_batch;
};
template <class P>
inline constexpr policy_functions policy_functions_of{
    [](void const* p, batch_facts const& facts) { return (*static_cast<P const*>(p))(facts); },
    [](void const* p, progress const& then, progress const& now) {
      return is_due(*static_cast<P const*>(p), then, now);
    },
    [](void const* p) { return limber::counts_epochs(*static_cast<P const*>(p)); }, replans<P>,
    scales_batch_with_schedule<P>};

}  // namespace detail

/// Holds a copy of a policy, and what can be asked of its type; empty if made of nullptr or moved from.
class any_policy {
 public:
  any_policy(std::nullptr_t) noexcept {}
  template <class P>
    requires(!std::is_same_v<P, any_policy> && batch_policy<P>)
  any_policy(P policy)
      : held_(std::in_place, std::move(policy)), functions_(&detail::policy_functions_of<P>) {}

  /// @pre it is not empty
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const {
    return functions_->plan(held_.get(), facts);
  }
  /// True if the policy wants to be asked at `now`, having been considered last at `then`. @pre it is not
  /// empty
  [[nodiscard]] bool due(progress const& then, progress const& now) const {
    return functions_->due(held_.get(), then, now);
  }
  /// False for policies that are asked when workers come or go, and never else.
  [[nodiscard]] bool asks_again() const noexcept { return *this && functions_->asks_again; }
  /// The batch grows where the rate would decay: a rate that follows the batch would undo it.
  [[nodiscard]] bool scales_batch() const noexcept { return *this && functions_->scales_batch; }
  /// It measures progress in epochs: `progress::epoch_size` must be known then.
  [[nodiscard]] bool counts_epochs() const { return *this && functions_->counts_epochs(held_.get()); }
  [[nodiscard]] explicit operator bool() const noexcept { return held_.get() != nullptr; }

 private:
  detail::box held_;
  detail::policy_functions const* functions_ = nullptr;
};

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A sum over the ranks that is started in one call of step() and waited for in a later one.

#include <limber/comm/collective.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/sync/bucket_sum.hpp>

#include <exception>
#include <utility>
#include <vector>

namespace limber::sync {

/// All buckets of a plan and a control block, on their way. At most one flight at a time.
///
/// Memory   buffers and control must stay where they are until `wait`, and outlive this object.
/// Errors   `wait` throws limber::error if a peer or the engine failed. Destroyed in flight it waits, so
///          that ranks which all end here end well; when an exception passes, it lets go instead, and the
///          others get an error.
template <collective C>
class standing_reduction {
  using handle = decltype(std::declval<C&>().all_reduce(const_tensor_view{}, tensor_view{}));

 public:
  standing_reduction() = default;
  standing_reduction(standing_reduction&&) = default;
  standing_reduction& operator=(standing_reduction&&) = delete;
  ~standing_reduction() {
    if (std::uncaught_exceptions() > exceptions_) return;
    try {
      wait();
    } catch (...) {  // whoever waits for a result is told
    }
  }

  /// Starts every bucket, then the control values in fp64. @pre not in flight
  void start(C& group, bucket_plan const& plan, slab const& from, slab const& to,
             const_tensor_view control_in, tensor_view control_out) {
    for (auto const& b : plan.buckets) requests_.push_back(sum_bucket(group, b, from, to));
    requests_.push_back(group.all_reduce(control_in, control_out));
  }
  void wait() {
    for (auto& r : requests_) r.wait();
    requests_.clear();
  }
  /// Gives up what is in flight, and the group with it.
  void drop() noexcept { requests_.clear(); }
  [[nodiscard]] bool in_flight() const noexcept { return !requests_.empty(); }

 private:
  std::vector<handle> requests_;
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace limber::sync

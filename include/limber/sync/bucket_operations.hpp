// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Reductions and broadcasts of the buckets of a plan, in flight.

#include <limber/comm/any_communicator.hpp>
#include <limber/core/function_ref.hpp>
#include <limber/fuse/bucket_plan.hpp>

#include <vector>

namespace limber::sync {

/// The bucket's run of `from`, summed over the ranks into that of `to`; collectives that depend on where its
/// tensors start are given that.
[[nodiscard]] any_request sum_bucket(communicator group, bucket const& b, slab const& from, slab const& to);

/// Operations in flight, in memory that is kept from step to step.
class bucket_operations {
 public:
  /// Sums every bucket and the control values over the group.
  ///
  /// All reductions are started before the first is waited for. The control block travels in fp64
  /// after the last bucket, whatever type the buckets have.
  void all_reduce(communicator group, bucket_plan const& plan, slab const& from, slab const& to,
                  const_tensor_view control_in, tensor_view control_out);
  /// Starts the reductions of the plan's buckets before `last` that were not started yet.
  void start(communicator group, bucket_plan const& plan, slab const& from, slab const& to, std::size_t last);
  /// Starts that of the control values, and waits for all.
  void finish(communicator group, const_tensor_view control_in, tensor_view control_out);
  /// Gives up what is in flight, and the group with it: memory that it was on may go.
  void drop() noexcept { requests_.clear(); }
  /// Sends every bucket and the control values from `root` to all.
  void broadcast(communicator group, bucket_plan const& plan, slab const& data, tensor_view control,
                 int root);

 private:
  void guarded(function_ref<void()> f);

  std::vector<any_request> requests_;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/bucket_operations.ipp>
#endif

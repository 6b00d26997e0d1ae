// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A sum over the ranks that is started in one call of step() and waited for in a later one.

#include <limber/comm/any_communicator.hpp>
#include <limber/fuse/bucket_plan.hpp>

#include <vector>

namespace limber::sync {

/// The reductions of all buckets of a plan and of a control block. At most one set is in flight.
///
/// Memory   buffers and control must stay where they are until `wait`, and outlive this object.
/// Errors   `wait` throws limber::error if a peer or the engine failed. The destructor waits for what is in
///          flight, so that ranks which all end here end without an error; while an exception unwinds it
///          drops the requests instead, and the other ranks get an error.
class standing_reduction {
 public:
  standing_reduction();
  standing_reduction(standing_reduction const&) = delete;
  standing_reduction& operator=(standing_reduction const&) = delete;
  ~standing_reduction();

  /// Starts every bucket, then the control values in fp64. @pre not in flight
  void start(communicator group, bucket_plan const& plan, slab const& from, slab const& to,
             const_tensor_view control_in, tensor_view control_out);
  void wait();
  /// Drops what is in flight, which ends the group.
  void drop() noexcept { requests_.clear(); }
  [[nodiscard]] bool in_flight() const noexcept { return !requests_.empty(); }

 private:
  std::vector<any_request> requests_;
  int exceptions_;  // uncaught when this object was made
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/standing_reduction.ipp>
#endif

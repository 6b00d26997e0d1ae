// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The weighted mean of a list over the ranks of a group: buffers, moments, model averages.

#include <limber/comm/any_communicator.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/sync/bucket_operations.hpp>

#include <cstdint>

namespace limber::sync {

/// x ← Σ wᵢ xᵢ / Σ wᵢ over the group. A rank whose list is not finite takes part with weight 0.
///
/// Travels and is added in fp64, whatever the list holds: values that nobody changed must not drift
/// by a rounding a time. A group of one changes nothing.
/// Collectives  one per bucket and one of 8 bytes; all ranks must call it.
/// State        none between calls; two buffers shaped like the list.
class weighted_mean {
 public:
  weighted_mean(any_executor& e, tensor_list list, bucket_options options);

  /// @return false if nothing changed: all weights were 0, or there is nobody to average with
  bool run(any_executor& e, communicator group, double weight);
  /// The part of `run` that others are needed for; changes nothing.
  void gather(any_executor& e, communicator group, double weight);
  /// The rest, which needs nobody and comes once after `gather`. @return as run
  bool apply(any_executor& e);

  [[nodiscard]] i64 bytes() const noexcept { return packed_.bytes + reduced_.bytes; }
  [[nodiscard]] std::uint64_t hash() const noexcept { return plan_.hash; }

 private:
  tensor_list list_;
  bucket_plan plan_;
  slab packed_, reduced_;
  double total_ = 0;  // Σ wᵢ of what was gathered and not applied
  bucket_operations operations_;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/weighted_mean.ipp>
#endif

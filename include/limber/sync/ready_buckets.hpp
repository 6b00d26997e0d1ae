// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Which buckets can be communicated while backward still computes others.

#include <limber/core/function_ref.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/norm_report.hpp>

#include <cstddef>
#include <vector>

namespace limber::sync {

/// Buckets that are packed together: one with its tensors, or all those of a tensor that was cut.
struct bucket_part {
  std::vector<i64> tensors;         ///< indices into the list
  std::size_t first = 0, last = 0;  ///< its buckets are [first, last) of the plan
  i64 missing = 0;                  ///< tensors that were not marked yet
  tensor_list to, sum, residual, gradients;
  norm_memory norms;
};

/// Returns the parts of a plan in its order, as far as their tensors are marked.
///
/// Order    that of the plan, the same on all ranks: a part waits for those before it, whatever the order
///          of marks.
/// State    between the first mark of a call and its `close`; lists and memory for norms from the first
///          `open` on.
class ready_buckets {
 public:
  /// Starts a call in which nothing is marked. Allocates the first time.
  void open(any_executor& e, bucket_plan const& plan);
  void close() noexcept { open_ = false; }
  /// True between `open` and `close`.
  [[nodiscard]] bool is_open() const noexcept { return open_; }

  /// Tensor `i` is complete. @pre is_open, not marked before
  void mark(i64 i) noexcept {
    // A tensor without elements is in no part.
    if (auto const p = part_of_[static_cast<std::size_t>(i)]; p < parts_.size()) --parts_[p].missing;
  }
  /// The next part if all its tensors are marked, else null.
  [[nodiscard]] bucket_part* take_complete() noexcept {
    return next_ < parts_.size() && parts_[next_].missing == 0 ? &parts_[next_++] : nullptr;
  }
  /// The next part, null after the last.
  [[nodiscard]] bucket_part* take() noexcept { return next_ < parts_.size() ? &parts_[next_++] : nullptr; }

  /// Calls f(part) for all parts.
  void each(function_ref<void(bucket_part const&)> f) const;

 private:
  void make(any_executor& e, bucket_plan const& plan);

  std::vector<bucket_part> parts_;
  std::vector<std::size_t> part_of_;  // per tensor; the number of parts for one in none
  std::size_t next_ = 0;              // parts before it were returned
  bool open_ = false;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/ready_buckets.ipp>
#endif

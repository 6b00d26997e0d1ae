// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Which buckets can be communicated while backward still computes others.

#include <limber/core/tensor.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/norm_report.hpp>

#include <cstddef>
#include <utility>
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
  void open(any_executor& e, bucket_plan const& plan) {
    if (parts_.empty()) make(e, plan);
    for (auto& p : parts_) p.missing = static_cast<i64>(p.tensors.size());
    next_ = 0;
    open_ = true;
  }
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

  [[nodiscard]] std::vector<bucket_part> const& parts() const noexcept { return parts_; }

 private:
  void make(any_executor& e, bucket_plan const& plan) {
    for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
      auto const& tensors = plan.buckets[b].tensors;
      if (parts_.empty() || parts_.back().tensors != tensors) {
        bucket_part p;
        p.tensors = tensors;
        p.first = b;
        for (auto* list : {&p.to, &p.sum, &p.residual, &p.gradients}) list->resize(tensors.size());
        p.norms = make_norms(e, static_cast<i64>(tensors.size()));
        parts_.push_back(std::move(p));
      }
      parts_.back().last = b + 1;
    }
    part_of_.assign(plan.where.places.size(), parts_.size());
    for (std::size_t p = 0; p < parts_.size(); ++p)
      for (i64 const i : parts_[p].tensors) part_of_[static_cast<std::size_t>(i)] = p;
  }

  std::vector<bucket_part> parts_;
  std::vector<std::size_t> part_of_;  // per tensor; the number of parts for one in none
  std::size_t next_ = 0;              // parts before it were returned
  bool open_ = false;
};

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What `gradients` keeps beside its sums: what a 16-bit wire cuts off, and which buckets are complete.

#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/layout.hpp>
#include <limber/fuse/norm_report.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/stage.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace limber::sync {

/// The residual e of a rank, one element for each of its gradient.
///
///     x = Σ w g + e;   sent = cast(x);   e ← x − sent             (`pack_with_error`)
///
/// Units    those of w g, w = b / B_planned; rescaled where the planned batch changes.
/// State    e, in the compute type, by tensor: buckets may change. Each rank holds its own part of a sum.
/// Choices  only an update that was applied changes e: packing writes the new residual to a second list, and
///          `commit` exchanges the two. A skipped step drops its gradient and keeps the residual from before;
///          so does a frozen tensor. A rank without samples sends its residual. What the engine rounds
///          while it adds in 16 bits is in no rank's residual and lost. So is the part of a rank that leaves.
/// Bounds   |e| ≤ ½ ulp of the wire at x: 2⁻⁸ |x| for bf16, 2⁻¹¹ |x| for f16 (2⁻²⁵ where that is subnormal).
/// Paper    Seide, Fu, Droppo, Li and Yu, 1-Bit Stochastic Gradient Descent, Interspeech 2014; Karimireddy,
///          Rebjock, Stich and Jaggi, Error Feedback Fixes SignSGD, ICML 2019, arXiv:1901.09847.
class error_feedback {
 public:
  /// Nothing is kept until this was called.
  void allocate(any_executor& e, tensor_list const& gradients) { residual_ = e.make(layout_of(gradients)); }
  [[nodiscard]] bool kept() const noexcept { return !residual_.parts.empty(); }

  /// e, while a round is packed.
  [[nodiscard]] tensor_list const& residual() const noexcept { return residual_.parts; }

  /// Changes to weights that are relative to `planned` samples. @param next  memory for the result
  void rescale(any_executor& e, slab& next, double planned) {
    double const before = std::exchange(planned_, planned);
    if (before == planned || before == 0) return;
    e.each(scaled_copy{before / planned}, out(next.parts), in(residual_.parts));
    std::swap(residual_.parts, next.parts);
  }

  /// The update was applied: what was packed into `next` is the residual from now on.
  void commit(slab& next, updater const& inner) {
    for (std::size_t i = 0; i < residual_.parts.size(); ++i)
      if (!inner.is_frozen(i)) std::swap(residual_.parts[i], next.parts[i]);
  }

  /// Shows what the weights are relative to, the same on all ranks, and e.
  void visit(piece_visitor f) {
    if (!kept()) return;
    f("error/planned", limber::kept::replicated, detail::bytes_view(planned_));
    detail::visit_list(f, limber::kept::partial, "error/", residual_.parts);
  }

  [[nodiscard]] i64 bytes() const noexcept { return residual_.bytes; }

 private:
  slab residual_;
  double planned_ = 0;  // samples that the weights in e are relative to; 0 before the first
};

/// Buckets that are packed together: one with its tensors, or all those of a tensor that was cut.
struct bucket_part {
  std::vector<i64> tensors;  ///< indices into the list
  std::size_t last = 0;      ///< the bucket of the plan behind its last
  i64 missing = 0;           ///< tensors that were not marked yet
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
  LIMBER_COLD void make(any_executor& e, bucket_plan const& plan) {
    for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
      auto const& tensors = plan.buckets[b].tensors;
      if (parts_.empty() || parts_.back().tensors != tensors) {
        bucket_part p;
        p.tensors = tensors;
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

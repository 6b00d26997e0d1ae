// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the cast to a 16-bit wire cuts off gradients, kept and added to the next.

#include <limber/core/error.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/layout.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/stage.hpp>

#include <cstddef>
#include <utility>

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

}  // namespace limber::sync

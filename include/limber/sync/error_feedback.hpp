// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a 16-bit wire cuts off gradients, kept until it is sent.

#include <limber/core/tensor.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/layout.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace limber::sync {

/// The error e that a rank owes, one element for each of its gradient.
///
///     x = Σ w g + e;   sent = cast(x);   e ← x − sent             (`pack_with_error`)
///
/// Units    those of w g, w = b / B_planned; rescaled where the planned batch changes.
/// State    e, in the compute type, by tensor: buckets may change. Each rank owes its own part of a sum.
/// Choices  only an update that was applied changes e: packing writes the new error to a second list, and
///          `commit` exchanges the two. A skipped step drops its gradient and owes what was owed before;
///          so does a frozen tensor. A rank without samples sends what it owes. What the engine rounds
///          while it adds in 16 bits is nobody's and lost. A rank that leaves takes its part along.
/// Bounds   |e| ≤ ½ ulp of the wire at x: 2⁻⁸ |x| for bf16, 2⁻¹¹ |x| for f16 (2⁻²⁵ where that is subnormal).
/// Paper    Seide, Fu, Droppo, Li and Yu, 1-Bit Stochastic Gradient Descent, Interspeech 2014; Karimireddy,
///          Rebjock, Stich and Jaggi, Error Feedback Fixes SignSGD, ICML 2019, arXiv:1901.09847.
class error_feedback {
 public:
  /// Nothing is kept until this was called.
  template <executor E>
  void allocate(E& e, tensor_list const& gradients) {
    owed_ = e.make(layout_of(gradients));
  }
  [[nodiscard]] bool kept() const noexcept { return !owed_.parts.empty(); }

  /// e, while a round is packed.
  [[nodiscard]] tensor_list const& owed() const noexcept { return owed_.parts; }

  /// Goes over to weights that are relative to `planned` samples. @param next  memory for the result
  template <executor E>
  void rescale(E& e, slab& next, double planned) {
    double const before = std::exchange(planned_, planned);
    if (before == planned || before == 0) return;
    e.each(scaled_copy{before / planned}, out(next.parts), in(owed_.parts));
    std::swap(owed_.parts, next.parts);
  }

  /// The update was applied: what was packed into `next` is owed from now on.
  template <class Updater>
  void commit(slab& next, Updater const& inner) {
    for (std::size_t i = 0; i < owed_.parts.size(); ++i)
      if (!inner.is_frozen(i)) std::swap(owed_.parts[i], next.parts[i]);
  }

  /// Calls alike(name, view) for what all ranks have the same, own(name, view) for the rest.
  template <class Alike, class Own>
  void visit(Alike const& alike, Own const& own) {
    if (!kept()) return;
    alike("error/planned",
          tensor_view{
              reinterpret_cast<std::byte*>(&planned_), static_cast<i64>(sizeof planned_), dtype::uint8, {}});
    for (auto const& t : owed_.parts) own(text("error/", t.name), t);
  }

  [[nodiscard]] i64 bytes() const noexcept { return owed_.bytes; }

 private:
  slab owed_;
  double planned_ = 0;  // samples that the weights in e are relative to; 0 before the first
};

}  // namespace limber::sync

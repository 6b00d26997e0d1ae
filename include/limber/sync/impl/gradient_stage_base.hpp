// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the stages before the rule have in common: how a gradient is weighed, and what is sent beside it.

#include <limber/core/math.hpp>
#include <limber/fuse/norm_report.hpp>
#include <limber/sync/agreement.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <array>

namespace limber::sync::detail {

/// What travels beside gradients, all of it summed. A stage may have more, behind these.
enum gradient_field { count, weighted_squares, contributions, bad_ranks, bad_rank_sum, gradient_fields };

/// The weight of a gradient of n samples, before it is divided by the planned ones.
[[nodiscard]] inline double weight_of(training_context const& at, i64 n) noexcept {
  return at.gradient == gradient_is::mean ? static_cast<double>(n) : n > 0 ? 1.0 : 0.0;
}

/// b‖g‖² of a gradient of n > 0 samples with Σ g² = square, as the host hands it over.
[[nodiscard]] inline double weighted_square(training_context const& at, i64 n, double square) noexcept {
  auto const b = static_cast<double>(n);
  return (at.gradient == gradient_is::mean ? b : 1 / b) * square;
}

/// Σ g² over tensors with these, frozen ones left out; square_at(i) of tensor i.
template <class F>
[[nodiscard]] double square_of(updater const& inner, F const& square_at) {
  double square = 0;
  for (std::size_t i = 0; i < inner.values().size(); ++i)
    if (!inner.is_frozen(i)) square += square_at(i);
  return square;
}
[[nodiscard]] inline double square_of(updater const& inner, norm_report const& report) {
  return square_of(inner, [&](std::size_t i) { return report.tensors[i].square; });
}

/// The facts of one call, whose gradient of n samples has Σ g² = square.
[[nodiscard]] inline std::array<double, gradient_fields> facts_of_call(training_context const& at, i64 n,
                                                                       double square, int rank) noexcept {
  auto const b = static_cast<double>(n);
  if (n == 0) return {b};
  bool const finite = math::finite(square);
  return {b, finite ? weighted_square(at, n, square) : 0, 1, finite ? 0.0 : 1.0,
          finite ? 0.0 : static_cast<double>(rank)};
}

/// Enters what an update came to. @param rank  from which a gradient that was not finite came
inline void enter_result(outcome& o, step_result const& v, int rank) noexcept {
  o.mean_square = v.mean_square;
  o.applied = v.applied;
  if (v.applied) return;
  o.skipped = true;
  o.culprit = v.culprit;
  o.culprit_rank = rank;
}

/// The rank that the summed facts name, −1 unless it was one alone.
[[nodiscard]] inline int bad_rank(double const* all) noexcept {
  return all[bad_ranks] == 1 ? static_cast<int>(all[bad_rank_sum]) : -1;
}

/// A stage that accumulates gradients, and averages buffers.
class gradient_stage_base : public gradient_stage {
 public:
  [[nodiscard]] i64& calls_open() override { return calls_; }
  [[nodiscard]] bool open() const override { return calls_ > 0; }
  [[nodiscard]] bucket_plan const& plan() const override { return plan_; }
  [[nodiscard]] i64 bytes() const override { return bytes_; }

 protected:
  gradient_stage_base(training_context& at, bucket_options const& cuts)
      : plan_(plan_buckets(at.gradients, cuts, at.use_order)),
        buffers_(at.exec, at.buffers, at.buckets),
        bytes_(buffers_.bytes()) {}

  // Memory that `bytes` counts.
  [[nodiscard]] slab make(training_context& at, layout const& where) {
    bytes_ += where.bytes;
    return at.exec.make(where);
  }

  bucket_plan plan_;
  weighted_mean buffers_;
  i64 bytes_;
  i64 calls_ = 0;  // accumulated since the last update
};

}  // namespace limber::sync::detail

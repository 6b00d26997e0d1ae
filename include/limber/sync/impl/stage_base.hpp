// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What stages at work have in common. For the definitions of this room.

#include <limber/core/math.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/norm_report.hpp>
#include <limber/sync/agreement.hpp>
#include <limber/sync/bucket_operations.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace limber::sync::detail {

/// A stage over all ranks or a group of them, with one plan, which averages buffers.
template <class Stage>
class stage_base : public Stage {
 public:
  void attach(training_context& at) override { group_ = at.comm; }
  [[nodiscard]] i64& calls_open() override { return calls_; }
  [[nodiscard]] bucket_plan const& plan() const override { return plan_; }
  [[nodiscard]] i64 bytes() const override { return bytes_; }

 protected:
  stage_base(training_context& at, bucket_plan plan)
      : plan_(std::move(plan)), buffers_(make_mean(at, at.buffers)) {}

  // A collective call if the group is a part of the ranks.
  void enter(any_group const& who, communicator all) {
    group_ = who.is_all() ? all : part_.emplace(who.of(all)).handle();
  }

  // Memory that `bytes` counts.
  [[nodiscard]] slab make(training_context& at, layout const& where) {
    bytes_ += where.bytes;
    return at.exec.make(where);
  }
  [[nodiscard]] weighted_mean make_mean(training_context& at, tensor_list const& list) {
    weighted_mean mean(at.exec, list, at.buckets);
    bytes_ += mean.bytes();
    return mean;
  }

  i64 bytes_ = 0;
  bucket_plan plan_;
  weighted_mean buffers_;
  std::optional<any_communicator> part_;  // of the ranks, where the stage is in one
  communicator group_;
  i64 calls_ = 0;  // since the last exchange
};

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

/// A stage that accumulates gradients.
class gradient_stage_base : public stage_base<gradient_stage> {
 public:
  [[nodiscard]] bool open() const override { return calls_ > 0; }

 protected:
  gradient_stage_base(training_context& at, bucket_options const& cuts)
      : stage_base(at, plan_buckets(at.gradients, cuts, at.use_order)) {}
};

/// Calls f(list) for the slots that a merge averages: weights, and moments where `at_merge` says so.
template <class F>
void each_averaged_slot(updater const& inner, moments at_merge, F const& f) {
  inner.slots([&](slot kind, tensor_list const& list) {
    if (kind == slot::weight || at_merge == moments::average) f(list);
  });
}

/// One rule for all tensors of a list.
[[nodiscard]] inline updater outer_updater(any_executor& e, tensor_list const& values,
                                           limber::detail::erased_rule const& rule) {
  updater outer(values);
  for (std::size_t i = 0; i < values.size(); ++i) outer.assign(static_cast<i64>(i), rule);
  outer.allocate(e);
  return outer;
}

/// @throws limber::error unless the outer update was applied
inline void expect_finite_sum(step_result const& v, tensor_list const& named, char const* stage,
                              char const* what_stays) {
  if (v.applied) return;
  throw error({"sync", stage, 0, -1, std::string(named[static_cast<std::size_t>(v.culprit)].name),
               text("the sum of the ranks' finite models overflows; ", what_stays)});
}

/// A stage that is due by `when`.
class model_stage_base : public stage_base<model_stage> {
 public:
  void start_round(training_context&) override { calls_ = samples_ = 0; }
  void start_first_round(training_context&) override {}
  void count(i64 own, double) override {
    ++calls_;
    samples_ += own;
  }
  [[nodiscard]] bool due(training_context const& at) const override { return when_(calls_, at.now); }
  [[nodiscard]] i64 period() const override { return when_.period(); }

 protected:
  model_stage_base(training_context& at, any_timing when, moments at_merge)
      : stage_base(at, plan_buckets(at.inner.model(), without_wire(at.buckets), at.use_order)),
        when_(std::move(when)),
        at_merge_(at_merge),
        model_(at.inner.model()) {}

  // Others' models have changed this rank's.
  void model_merged(training_context& at) const {
    at.inner.copy_to_parameters(at.exec);
    if (at_merge_ == moments::reset) at.inner.reset_moments(at.exec);
  }

  any_timing when_;
  moments at_merge_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere
  i64 samples_ = 0;    // that this rank applied since the last exchange
};

/// A stage with a copy of the model that all ranks share, to which the mean difference from it is fed.
class anchored_stage : public model_stage_base {
 public:
  /// Takes the model as it is for the copy.
  void start_round(training_context& at) override {
    pinned_ = 1;
    at.exec.each(copy{}, out(anchor_.parts), in(model_));
    calls_ = samples_ = 0;
  }
  /// The first start of all; later the copy is state, which may be finer than the parameters.
  void start_first_round(training_context& at) override {
    if (pinned_ == 0) start_round(at);
  }

 protected:
  anchored_stage(training_context& at, any_timing when, moments at_merge,
                 limber::detail::erased_rule const& how)
      : model_stage_base(at, std::move(when), at_merge),
        anchor_(make(at, layout_of(model_))),
        packed_(make(at, plan_.where)),
        reduced_(make(at, plan_.where)),
        outer_(outer_updater(at.exec, anchor_.parts, how)) {
    bytes_ += outer_.slot_bytes();
  }

  // packed ← weight · (anchor − model). @return false if that is not finite: zeros are sent then
  bool pack_difference(training_context& at, double weight) {
    return pack_finite(at.exec, difference{weight}, packed_.parts, in(anchor_.parts), in(model_));
  }
  // reduced ← Σ packed, with control values.
  template <std::size_t N>
  void reduce(std::array<double, N> const& mine, std::array<double, N>& all, char const* name) {
    operations_.all_reduce(group_, plan_, packed_, reduced_, const_view(mine, name), view(all, name));
  }

  slab anchor_, packed_, reduced_;
  updater outer_;
  std::vector<weighted_mean> means_;  // of slots
  bucket_operations operations_;      // destroyed before the memory and the group that it uses
  i64 pinned_ = 0;                    // the copy was made
};

}  // namespace limber::sync::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/math.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/sync/agreement.hpp>
#include <limber/sync/bucket_operations.hpp>
#include <limber/sync/merge.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <array>
#include <string>
#include <vector>

namespace limber::sync {

namespace detail {

/// The stage at work.
class merge_state final : public model_stage {
 public:
  merge_state(merge stage, training_context& at)
      : stage_(stage),
        model_(at.inner.model()),
        plan_(plan_buckets(model_, without_wire(at.buckets), at.use_order)),
        anchor_(at.exec.make(layout_of(model_))),
        packed_(at.exec.make(plan_.where)),
        reduced_(at.exec.make(plan_.where)),
        outer_(anchor_.parts),
        buffers_(at.exec, at.buffers, at.buckets) {
    for (std::size_t i = 0; i < anchor_.parts.size(); ++i)
      outer_.assign(static_cast<i64>(i), stage_.how.erased());
    outer_.allocate(at.exec);
    at.inner.slots([&](slot kind, tensor_list const& list) {
      if (kind == slot::weight || stage_.at_merge == moments::average)
        means_.emplace_back(at.exec, list, at.buckets);
    });
  }

  void attach(training_context& at) override { group_.enter(stage_.who, at.comm); }

  /// Takes the model as it is for the start of a round.
  void start_round(training_context& at) override {
    pinned_ = 1;
    at.exec.each(copy{}, out(anchor_.parts), in(model_));
    calls_ = 0;
    samples_ = 0;
  }

  /// The first start of all; later the anchor is state, which may be finer than the parameters.
  void start_first_round(training_context& at) override {
    if (pinned_ == 0) start_round(at);
  }

  /// Counts one update at rate `eta`, in which this rank applied `own` samples.
  void count(i64 own, double eta) override {
    ++calls_;
    samples_ += own;
    if (eta > 0) last_rate_ = eta;
  }
  [[nodiscard]] bool due(training_context const& at) const override { return stage_.when(calls_, at.now); }

  /// Merges the models of the group. @return the samples that went into them, agreed in the group
  i64 run(training_context& at) override {
    control const sums = mean_difference(at);
    communicator group = group_.comm();
    agreement::expect(&sums[1], at, group);
    double const total = sums[0];
    for (auto& m : means_) m.gather(at.exec, group, weight(at));
    buffers_.gather(at.exec, group, weight(at));
    // From here on nobody else is needed: a rank merges wholly or not at all.
    if (total > 0) {
      double const per = stage_.unit == outer_rate::per_rate && last_rate_ > 0 ? last_rate_ : 1;
      step_result const v =
          outer_.step(at.exec, reduced_.parts, stage_.rate * per, nominal(at) / total / per, false);
      if (!v.applied)
        throw error({"sync", "merge", 0, -1,
                     std::string(at.inner.values()[static_cast<std::size_t>(v.culprit)].name),
                     "the sum of the ranks' finite models overflows; nothing was merged"});
    }
    for (auto& m : means_) m.apply(at.exec);
    buffers_.apply(at.exec);
    at.exec.each(copy{}, out(model_), in(anchor_.parts));  // masters are among the weight slots: after those
    at.inner.copy_to_parameters(at.exec);
    if (stage_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
    calls_ = 0;
    samples_ = 0;
    return static_cast<i64>(total);
  }

  /// Writes the mean of the models to the parameters, that of buffers to the buffers. Changes nothing
  /// else; the caller puts them back.
  void average_into(training_context& at, tensor_list const& values) override {
    buffers_.run(at.exec, group_.comm(), weight(at));
    double const total = mean_difference(at)[0];
    double const factor = total > 0 ? nominal(at) / total : 0;
    at.exec.each(step_back{factor}, out(values), in(anchor_.parts), in(reduced_.parts));
  }

  void visit(view_visitor f, view_visitor own) override {
    f("pinned", tensor_view{reinterpret_cast<std::byte*>(&pinned_), 1, dtype::int64, {}});
    f("last_rate",
      tensor_view{
          reinterpret_cast<std::byte*>(&last_rate_), static_cast<i64>(sizeof last_rate_), dtype::uint8, {}});
    own("samples", tensor_view{reinterpret_cast<std::byte*>(&samples_), 1, dtype::int64, {}});
    for (auto const& t : anchor_.parts) f(text("anchor/", t.name), t);
    outer_.visit("outer/", [&](std::string const& name, tensor_view v, bool) { f(name, v); });
  }

  [[nodiscard]] i64& calls_open() noexcept override { return calls_; }
  [[nodiscard]] i64 bytes() const noexcept override {
    i64 sum = anchor_.bytes + packed_.bytes + reduced_.bytes + outer_.slot_bytes() + buffers_.bytes();
    for (auto const& m : means_) sum += m.bytes();
    return sum;
  }
  [[nodiscard]] bucket_plan const& plan() const noexcept override { return plan_; }
  [[nodiscard]] i64 period() const override { return stage_.when.period(); }
  void mix(fingerprint& h) const override {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(period());
    h.mix(stage_.rate);
    h.mix(static_cast<i64>(stage_.at_merge));
    h.mix(static_cast<i64>(stage_.unit));
    limber::detail::mix_rule(h, stage_.how.erased());
  }

 private:
  [[nodiscard]] static double nominal(training_context const& at) noexcept { return at.planned; }
  [[nodiscard]] double weight(training_context const& at) const noexcept {
    return static_cast<double>(samples_) / nominal(at);
  }

  // Samples, and what must be equal on all ranks.
  using control = std::array<double, 1 + agreement::fields>;

  // reduced ← Σ wᵢ (x̃ − xᵢ); returns Σ nᵢ over the ranks that took part, and the sums of the agreement.
  control mean_difference(training_context& at) {
    control mine{static_cast<double>(samples_)}, all{};
    agreement::write(&mine[1], at, group_.comm().size());
    if (!at.exec.norm(difference{weight(at)}, out(packed_.parts), in(anchor_.parts), in(model_))
             .total.finite) {
      at.exec.each(zero{}, out(packed_.parts));
      mine[0] = 0;
    }
    at.exec.synchronize();
    operations_.all_reduce(group_.comm(), plan_, packed_, reduced_, const_view(mine, "merge: samples"),
                           view(all, "merge: samples"));
    return all;
  }

  merge stage_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere
  bucket_plan plan_;
  slab anchor_, packed_, reduced_;
  updater outer_;
  weighted_mean buffers_;
  std::vector<weighted_mean> means_;

  process_group group_;
  bucket_operations operations_;
  i64 pinned_ = 0;        // the anchor was set
  i64 calls_ = 0;         // updates since the last merge
  i64 samples_ = 0;       // that this rank applied in them
  double last_rate_ = 0;  // η of the last update at a rate that was not 0
};

}  // namespace detail

LIMBER_FN merge::merge(any_timing w, any_group o, any_rule h, double r, moments m, outer_rate u)
    : when(w), who(o), how(h), rate(r), at_merge(m), unit(u) {
  limber::detail::check_rule(how.erased());
  expects(rate >= 0 && math::finite(rate), "merge: rate must be a number of at least 0, got ", rate);
}

LIMBER_FN limber::detail::owner<model_stage> merge::start(training_context& at) const {
  return limber::detail::owner<model_stage>(new detail::merge_state(*this, at));
}

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/impl/stage_base.hpp>
#include <limber/sync/merge.hpp>

namespace limber::sync {

namespace detail {

/// The stage at work.
class merge_state final : public anchored_stage {
 public:
  merge_state(merge stage, training_context& at)
      : anchored_stage(at, stage.when, stage.at_merge, stage.how.erased()), stage_(stage) {
    each_averaged_slot(at.inner, at_merge_,
                       [&](tensor_list const& list) { means_.push_back(make_mean(at, list)); });
  }

  void attach(training_context& at) override { enter(stage_.who, at.comm); }

  void count(i64 own, double rate) override {
    anchored_stage::count(own, rate);
    if (rate > 0) last_rate_ = rate;
  }

  /// Merges the models of the group. @return the samples that went into them, agreed in the group
  i64 run(training_context& at) override {
    control const sums = mean_difference(at);
    agreement::expect(&sums[1], at, group_);
    double const total = sums[0];
    for (auto& m : means_) m.gather(at.exec, group_, weight(at));
    buffers_.gather(at.exec, group_, weight(at));
    // From here on nobody else is needed: a rank merges wholly or not at all.
    if (total > 0) {
      double const per = stage_.unit == outer_rate::per_rate && last_rate_ > 0 ? last_rate_ : 1;
      expect_finite_sum(
          outer_.step(at.exec, reduced_.parts, stage_.rate * per, at.planned / total / per, false),
          at.inner.values(), "merge", "nothing was merged");
    }
    for (auto& m : means_) m.apply(at.exec);
    buffers_.apply(at.exec);
    at.exec.each(copy{}, out(model_), in(anchor_.parts));  // masters are among the weight slots: after those
    model_merged(at);
    calls_ = samples_ = 0;
    return static_cast<i64>(total);
  }

  /// Writes the mean of the models to the parameters, that of buffers to the buffers. Changes nothing
  /// else; the caller puts them back.
  void average_into(training_context& at, tensor_list const& values) override {
    buffers_.run(at.exec, group_, weight(at));
    double const total = mean_difference(at)[0];
    double const factor = total > 0 ? at.planned / total : 0;
    at.exec.each(step_back{factor}, out(values), in(anchor_.parts), in(reduced_.parts));
  }

  void visit(kept shared, piece_visitor f) override {
    f("pinned", shared, number_view(pinned_));
    f("last_rate", shared, bytes_view(last_rate_));
    f("samples", kept::round, number_view(samples_));
    visit_list(f, shared, "anchor/", anchor_.parts);
    outer_.visit("outer/", [&](std::string const& name, tensor_view v, bool) { f(name, shared, v); });
  }

  void mix(fingerprint& h) const override {
    mix_all(h, plan_.hash, period(), stage_.rate, at_merge_, stage_.unit);
    limber::detail::mix_rule(h, stage_.how.erased());
  }

 private:
  [[nodiscard]] double weight(training_context const& at) const noexcept {
    return static_cast<double>(samples_) / at.planned;
  }

  // Samples, and what must be equal on all ranks.
  using control = std::array<double, 1 + agreement::fields>;

  // reduced ← Σ wᵢ (x̃ − xᵢ); returns Σ nᵢ over the ranks that took part, and the sums of the agreement.
  control mean_difference(training_context& at) {
    control mine{static_cast<double>(samples_)}, all{};
    agreement::write(&mine[1], at, group_.size());
    if (!pack_difference(at, weight(at))) mine[0] = 0;
    reduce(mine, all, "merge: samples");
    return all;
  }

  merge stage_;
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

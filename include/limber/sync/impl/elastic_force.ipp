// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/functors.hpp>
#include <limber/rule/descent.hpp>
#include <limber/sync/bucket_operations.hpp>
#include <limber/sync/elastic_force.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace limber::sync {

namespace detail {

/// The stage at work.
class elastic_force_state final : public model_stage {
 public:
  elastic_force_state(elastic_force stage, training_context& at)
      : stage_(std::move(stage)),
        model_(at.inner.model()),
        plan_(plan_buckets(model_, without_wire(at.buckets), at.use_order)),
        centre_(at.exec.make(layout_of(model_))),
        packed_(at.exec.make(plan_.where)),
        reduced_(at.exec.make(plan_.where)),
        outer_(centre_.parts),
        buffers_(at.exec, at.buffers, at.buckets) {
    unifies = false;
    for (std::size_t i = 0; i < centre_.parts.size(); ++i) outer_.assign(static_cast<i64>(i), descent{});
    outer_.allocate(at.exec);
    if (stage_.at_merge == moments::average)
      at.inner.slots([&](slot kind, tensor_list const& list) {
        if (kind == slot::moment) histories_.emplace_back(at.exec, list, at.buckets);
      });
  }

  void attach(training_context& at) override { group_ = at.comm; }

  /// The centre starts at the model.
  void start_round(training_context& at) override {
    centre_set_ = 1;
    at.exec.each(copy{}, out(centre_.parts), in(model_));
    calls_ = 0;
    samples_ = 0;
  }
  void start_first_round(training_context& at) override {
    if (centre_set_ == 0) start_round(at);
  }

  void count(i64 own, double) override {
    ++calls_;
    samples_ += own;
  }
  [[nodiscard]] bool due(training_context const& at) const override { return stage_.when(calls_, at.now); }

  /// One exchange with the centre. @return the samples of all ranks since the last one
  i64 run(training_context& at) override {
    double const alpha = stage_.moving_rate / static_cast<double>(group_.size());
    bool const finite =
        at.exec.norm(difference{1}, out(packed_.parts), in(centre_.parts), in(model_)).total.finite;
    if (!finite) at.exec.each(zero{}, out(packed_.parts));
    std::array<double, 1> mine{static_cast<double>(samples_)}, all{};
    at.exec.synchronize();
    operations_.all_reduce(group_, plan_, packed_, reduced_, const_view(mine, "elastic: samples"),
                           view(all, "elastic: samples"));
    for (auto& m : histories_) m.gather(at.exec, group_, 1);
    buffers_.gather(at.exec, group_, 1);
    // No communication after this point: a rank applies all of an exchange or nothing.
    if (finite)
      at.exec.each(blend{alpha}, inout(model_), in(centre_.parts));
    else
      at.exec.each(copy{}, out(model_), in(centre_.parts));
    step_result const r = outer_.step(at.exec, reduced_.parts, alpha, 1, false);
    if (!r.applied)
      throw error({"sync", "elastic", 0, -1,
                   std::string(at.inner.values()[static_cast<std::size_t>(r.culprit)].name),
                   "the sum of the ranks' finite models overflows; the centre stays"});
    at.inner.copy_to_parameters(at.exec);
    if (stage_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
    for (auto& m : histories_) m.apply(at.exec);
    buffers_.apply(at.exec);
    calls_ = 0;
    samples_ = 0;
    return static_cast<i64>(all[0]);
  }

  /// Writes the centre to `values`, the mean of buffers to the buffers.
  void average_into(training_context& at, tensor_list const& values) override {
    buffers_.run(at.exec, group_, 1);
    at.exec.each(copy{}, out(values), in(centre_.parts));
  }

  void visit(view_visitor shared, view_visitor own) override {
    shared("pinned", tensor_view{reinterpret_cast<std::byte*>(&centre_set_), 1, dtype::int64, {}});
    own("samples", tensor_view{reinterpret_cast<std::byte*>(&samples_), 1, dtype::int64, {}});
    for (auto const& t : centre_.parts) shared(text("centre/", t.name), t);
  }

  [[nodiscard]] i64& calls_open() override { return calls_; }
  [[nodiscard]] bucket_plan const& plan() const override { return plan_; }
  [[nodiscard]] i64 period() const override { return stage_.when.period(); }
  [[nodiscard]] i64 bytes() const override {
    i64 sum = centre_.bytes + packed_.bytes + reduced_.bytes + buffers_.bytes();
    for (auto const& m : histories_) sum += m.bytes();
    return sum;
  }
  void mix(fingerprint& h) const override {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(period());
    h.mix(stage_.moving_rate);
    h.mix(static_cast<i64>(stage_.at_merge));
  }

 private:
  elastic_force stage_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere
  bucket_plan plan_;
  slab centre_, packed_, reduced_;
  updater outer_;
  weighted_mean buffers_;
  std::vector<weighted_mean> histories_;  // of gradients, where they are averaged
  communicator group_;
  bucket_operations operations_;  // destroyed before the memory that it uses
  i64 centre_set_ = 0;
  i64 calls_ = 0;    // updates since the last exchange
  i64 samples_ = 0;  // that this rank applied in them
};

}  // namespace detail

LIMBER_FN elastic_force::elastic_force(any_timing w, double rate, moments m)
    : when(std::move(w)), moving_rate(rate), at_merge(m) {
  expects(rate >= 0 && rate <= 1, "elastic: moving_rate must be in [0, 1], got ", rate);
}

LIMBER_FN limber::detail::owner<model_stage> elastic_force::start(training_context& at) const {
  return limber::detail::owner<model_stage>(new detail::elastic_force_state(*this, at));
}

}  // namespace limber::sync

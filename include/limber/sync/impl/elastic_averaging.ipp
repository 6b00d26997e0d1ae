// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/elastic_averaging.hpp>
#include <limber/sync/impl/stage_base.hpp>

namespace limber::sync {

namespace detail {

/// The stage at work. The anchor is the centre; `means_` are those of gradient histories.
class elastic_averaging_state final : public anchored_stage {
 public:
  elastic_averaging_state(elastic_averaging const& stage, training_context& at)
      : anchored_stage(at, stage.period, stage.at_merge, any_rule(descent{}).erased()),
        moving_rate_(stage.moving_rate) {
    unifies = false;
    if (at_merge_ == moments::average)
      at.inner.slots([&](slot kind, tensor_list const& list) {
        if (kind == slot::moment) means_.push_back(make_mean(at, list));
      });
  }

  /// One exchange with the centre. @return the samples of all ranks since the last one
  i64 run(training_context& at) override {
    double const alpha = moving_rate_ / static_cast<double>(group_.size());
    bool const finite = pack_difference(at, 1);
    std::array<double, 1> const mine{static_cast<double>(samples_)};
    std::array<double, 1> all{};
    reduce(mine, all, "elastic: samples");
    for (auto& m : means_) m.gather(at.exec, group_, 1);
    buffers_.gather(at.exec, group_, 1);
    // No communication after this point: a rank applies all of an exchange or nothing.
    if (finite)
      at.exec.each(blend{alpha}, inout(model_), in(anchor_.parts));
    else
      at.exec.each(copy{}, out(model_), in(anchor_.parts));
    expect_finite_sum(outer_.step(at.exec, reduced_.parts, alpha, 1, false), at.inner.values(), "elastic",
                      "the centre stays");
    model_merged(at);
    for (auto& m : means_) m.apply(at.exec);
    buffers_.apply(at.exec);
    calls_ = samples_ = 0;
    return static_cast<i64>(all[0]);
  }

  /// Writes the centre to `values`, the mean of buffers to the buffers.
  void average_into(training_context& at, tensor_list const& values) override {
    buffers_.run(at.exec, group_, 1);
    at.exec.each(copy{}, out(values), in(anchor_.parts));
  }

  void visit(kept shared, piece_visitor f) override {
    f("pinned", shared, number_view(pinned_));
    f("samples", kept::round, number_view(samples_));
    visit_list(f, shared, "centre/", anchor_.parts);
  }
  void mix(fingerprint& h) const override { mix_all(h, plan_.hash, period(), moving_rate_, at_merge_); }

 private:
  double moving_rate_;
};

// The members are what they can be.
inline void check(elastic_averaging const& s) {
  expects(s.moving_rate >= 0 && s.moving_rate <= 1, "elastic: moving_rate must be in [0, 1], got ",
          s.moving_rate);
}

}  // namespace detail

LIMBER_FN limber::detail::owner<model_stage> elastic_averaging::start(training_context& at) const {
  detail::check(*this);
  return limber::detail::owner<model_stage>(new detail::elastic_averaging_state(*this, at));
}

LIMBER_FN exchange elastic_averaging::parts() const {
  detail::check(*this);
  return exchange(gradients(every{1}, alone{}), *this);
}

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A strategy of one's own: a value and its state, without base classes. Copy it and change what `exchange`
/// does; what else a stage may say is in limber/sync/plain_stage.hpp.

#include <limber/fuse/functors.hpp>
#include <limber/sync/exchange.hpp>

#include <array>
#include <string>

namespace example {

using namespace limber;

/// Anchored averaging: every worker trains on its own, and every `period` updates goes part of its way to the
/// mean of all models.
///
///     a ← (1/N) Σ xᵢ;   xᵢ ← xᵢ + pull (a − xᵢ)          after finish() xᵢ = a
///
/// State        a, the anchor, and the number of exchanges: the same on all ranks.
/// Choices      all models weigh the same, whatever their samples; buffers stay each worker's own.
/// Collectives  one all-reduce a tensor every `period` updates, of 16-bit models in fp32.
struct anchored {
  i64 period = 4;
  double pull = 0.5;  ///< 1: local SGD with an unweighted mean

  static constexpr bool uniform_updates = true;  // an exchange has one result, a, on all ranks
  static constexpr capabilities needs = 0;       // beyond what every collective can do

  class state;
  [[nodiscard]] state start(sync::training_context& at) const;
  [[nodiscard]] sync::exchange parts() const {
    return sync::exchange(sync::gradients(sync::every{1}, sync::alone{}), *this);
  }
  void mix(fingerprint& h) const { h.mix(period), h.mix(pull); }
};

class anchored::state {
 public:
  state(anchored how, sync::training_context& at)
      : how_(how),
        model_(at.inner.model()),  // masters where a rule keeps them, the parameters elsewhere
        own_(at.exec.make(layout_of(model_))),
        sum_(at.exec.make(layout_of(model_))),
        anchor_(at.exec.make(layout_of(model_))) {}

  [[nodiscard]] bool due(i64 updates, progress const&) const { return updates >= how_.period; }
  void exchange(sync::training_context& at) {
    mean_into(at, anchor_.parts);
    at.exec.each(blend{how_.pull}, inout(model_), in(anchor_.parts));
    at.inner.copy_to_parameters(at.exec);
    ++exchanges_[0];
  }
  void finish(sync::training_context& at) {
    if (exchanges_[0] == 0) return;
    at.exec.each(copy{}, out(model_), in(anchor_.parts));
    at.inner.copy_to_parameters(at.exec);
  }
  void average_into(sync::training_context& at, tensor_list const& values) { mean_into(at, values); }
  void visit(sync::piece_visitor f) {
    f("exchanges", kept::replicated, view(exchanges_));
    for (auto const& a : anchor_.parts) f("anchor/" + std::string(a.name), kept::replicated, a);
  }

 private:
  void mean_into(sync::training_context& at, tensor_list const& to) {
    at.exec.each(copy{}, out(own_.parts), in(model_));
    at.exec.synchronize();  // the collective reads what the executor wrote
    for (std::size_t k = 0; k < model_.size(); ++k) at.comm.all_reduce(own_.parts[k], sum_.parts[k]).wait();
    at.exec.each(scaled_copy{1.0 / at.comm.size()}, out(to), in(sum_.parts));
  }

  anchored how_;
  tensor_list model_;
  slab own_, sum_, anchor_;
  std::array<i64, 1> exchanges_{};
};

inline anchored::state anchored::start(sync::training_context& at) const { return {*this, at}; }

}  // namespace example

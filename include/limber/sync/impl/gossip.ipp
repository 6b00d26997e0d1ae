// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/functors.hpp>
#include <limber/fuse/strategy_functors.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <array>
#include <utility>
#include <vector>

namespace limber::sync {

LIMBER_FN void take_into_mean(any_executor& e, tensor_list const& mean, tensor_list const& x, i64 parts) {
  if (parts == 1)
    e.each(copy{}, out(mean), in(x));
  else if (parts == 2)
    e.each(half_and_half{}, inout(mean), in(x));
  else
    e.each(blend{1 / static_cast<double>(parts)}, inout(mean), in(x));
}

LIMBER_FN tensor_list carried_by_gossip(updater const& inner, moments at_merge) {
  tensor_list all = inner.model();
  inner.slots([&](slot kind, tensor_list const& list) {
    if (kind == slot::weight || at_merge == moments::average) all.insert(all.end(), list.begin(), list.end());
  });
  return all;
}

LIMBER_FN void agree_on_round(communicator comm, i64& round) {
  std::array<i64, 1> mine{round}, most{};
  comm.all_reduce(const_view(mine, "gossip: round"), view(most, "gossip: round"), reduction::max).wait();
  round = most[0];
}

namespace detail {

/// The stage at work.
class gossip_round_state final : public model_stage {
 public:
  gossip_round_state(gossip_round stage, training_context& at)
      : stage_(std::move(stage)),
        model_(at.inner.model()),
        carried_(carried_by_gossip(at.inner, stage_.at_merge)),
        plan_(plan_buckets(carried_, without_wire(at.buckets))),
        sent_(at.exec.make(plan_.where)),
        received_(at.exec.make(plan_.where)),
        mean_(at.exec, at.inner.values(), at.buckets),
        buffers_(at.exec, at.buffers, at.buckets) {
    unifies = false;
  }

  void attach(training_context& at) override {
    group_ = at.comm;
    agree_on_round(group_, round_);
  }
  void start_round(training_context&) override { calls_ = 0; }
  void start_first_round(training_context&) override {}

  void count(i64, double) override { ++calls_; }
  [[nodiscard]] bool due(training_context const& at) const override { return stage_.when(calls_, at.now); }

  /// One round: sends the model as it is, and averages in what is received.
  i64 run(training_context& at) override {
    calls_ = 0;
    int const own = group_.rank(), size = group_.size();
    auto const round = itinerary(own, size, crossings_of(stage_.how, size, stage_.seed, round_++));
    if (round.empty()) return 0;
    i64 parts = at.exec.norm(weighted{1}, out(sent_.parts), in(carried_)).total.finite ? 1 : 0;
    at.exec.synchronize();
    for (auto const& message : round) {
      if (message.from == own) {
        for (auto const& b : plan_.buckets) group_.send(bucket_view(sent_, b), message.to);
        continue;
      }
      for (auto const& b : plan_.buckets) group_.recv(bucket_view(received_, b), message.from);
      if (!at.exec.norm(identity{}, in(received_.parts)).total.finite) continue;
      take_into_mean(at.exec, carried_, received_.parts, ++parts);
      at.exec.synchronize();  // the next message is received into the same memory
    }
    at.inner.copy_to_parameters(at.exec);
    if (stage_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
    return 0;
  }

  /// Writes the mean of all models to `values`, that of buffers to the buffers. A collective call.
  void average_into(training_context& at, tensor_list const& values) override {
    at.exec.each(copy{}, out(values), in(model_));
    mean_.run(at.exec, group_, 1);
    buffers_.run(at.exec, group_, 1);
  }

  void visit(view_visitor shared, view_visitor) override {
    shared("round", tensor_view{reinterpret_cast<std::byte*>(&round_), 1, dtype::int64, {}});
  }

  [[nodiscard]] i64& calls_open() override { return calls_; }
  [[nodiscard]] bucket_plan const& plan() const override { return plan_; }
  [[nodiscard]] i64 period() const override { return stage_.when.period(); }
  [[nodiscard]] i64 bytes() const override {
    return sent_.bytes + received_.bytes + mean_.bytes() + buffers_.bytes();
  }
  void mix(fingerprint& h) const override {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(period());
    h.mix(static_cast<i64>(stage_.how));
    h.mix(static_cast<i64>(stage_.seed));
    h.mix(static_cast<i64>(stage_.at_merge));
  }

 private:
  gossip_round stage_;
  tensor_list model_;    // masters where there are any, the parameters elsewhere
  tensor_list carried_;  // the model, and what is averaged with it
  bucket_plan plan_;
  slab sent_, received_;
  weighted_mean mean_, buffers_;
  communicator group_;
  i64 round_ = 0;
  i64 calls_ = 0;  // updates since the last exchange
};

}  // namespace detail

LIMBER_FN limber::detail::owner<model_stage> gossip_round::start(training_context& at) const {
  return limber::detail::owner<model_stage>(new detail::gossip_round_state(*this, at));
}

LIMBER_FN exchange gossip::parts() const {
  return exchange(gradients(every{1}, alone{}), gossip_round(every{period}, how, seed, at_merge));
}

}  // namespace limber::sync

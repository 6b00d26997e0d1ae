// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/strategy_functors.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/impl/model_stage_base.hpp>

namespace limber::sync {

namespace detail {

/// The stage at work.
class gossip_round_state final : public carrying_stage {
 public:
  gossip_round_state(gossip_round const& stage, training_context& at)
      : carrying_stage(at, stage.when, stage.at_merge),
        how_(stage.how),
        seed_(stage.seed),
        sent_(make(at, plan_.where)),
        received_(make(at, plan_.where)) {}

  void attach(training_context& at) override {
    group_ = at.comm;
    agree_on_round();
  }

  /// One round: sends the model as it is, and averages in what is received.
  i64 run(training_context& at) override {
    calls_ = 0;
    int const own = group_.rank(), size = group_.size();
    auto const round = itinerary(own, size, crossings_of(how_, size, seed_, round_++));
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
      take_into_mean(at, received_.parts, ++parts);
      at.exec.synchronize();  // the next message is received into the same memory
    }
    model_merged(at);
    return 0;
  }

  void visit(kept shared, piece_visitor f) override { f("round", shared, number_view(round_)); }
  void mix(fingerprint& h) const override { mix_all(h, plan_.hash, period(), how_, seed_, at_merge_); }

 private:
  gossip_how how_;
  std::uint64_t seed_;
  slab sent_, received_;
};

}  // namespace detail

LIMBER_FN limber::detail::owner<model_stage> gossip_round::start(training_context& at) const {
  return limber::detail::owner<model_stage>(new detail::gossip_round_state(*this, at));
}

LIMBER_FN exchange gossip::parts() const {
  return exchange(gradients(every{1}, alone{}), gossip_round(every{period}, how, seed, at_merge));
}

}  // namespace limber::sync

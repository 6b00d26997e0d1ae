// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap after the rule, in rounds of gossip: models are averaged with those of random others.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/gossip_partners.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>

#include <array>
#include <cstdint>
#include <vector>

namespace limber::sync {

/// xᵢ ← (xᵢ + Σ xᵣ) / (1 + |R|) every `when`, over the models r ∈ R that reach rank i in this round.
///
/// State    the round; models stay apart, also after an exchange; `evaluate` shows their mean.
/// Choices  who sends to whom follows from seed and round alone, so that all ranks know it; all models are
///          those from before the round. In a matching both partners hold the same bits afterwards. A model
///          that is not finite weighs nothing: its worker takes the mean of those that reach it.
/// Slots    weight slots (moving averages) go with the model, gradient history by `at_merge`.
/// Collectives  none but the round's messages, each bucket sent and received blocking, in an order that
///          cannot deadlock (`itinerary`). Needs a `point_to_point` collective. Attaching agrees on the
///          round.
template <timing When>
struct gossip_round {
  When when;
  gossip_how how;
  std::uint64_t seed;
  moments at_merge;

  explicit gossip_round(When w, gossip_how h = gossip_how::matching, std::uint64_t s = 0,
                        moments m = moments::keep)
      : when(w), how(h), seed(s), at_merge(m) {}

  template <class Site>
  class state;
};

/// to ← (to + from) / 2; the same bits whichever of the two is `to`.
struct half_and_half {
  template <class T>
  LIMBER_HD void operator()(T& to, T const& from) const noexcept {
    to = math::mul(T(0.5), math::add(to, from));
  }
};

/// Takes x into a mean, as the last of `parts`: mean ← mean + (x − mean) / parts. Models that are equal stay
/// what they are, bit for bit.
template <executor E>
void take_into_mean(E& e, tensor_list const& mean, tensor_list const& x, i64 parts) {
  if (parts == 1)
    e.each(copy{}, out(mean), in(x));
  else if (parts == 2)
    e.each(half_and_half{}, inout(mean), in(x));
  else
    e.each(blend{1 / static_cast<double>(parts)}, inout(mean), in(x));
}

/// What crosses in gossip: the model, its moving averages, and gradient history where that is averaged, too.
template <class U>
[[nodiscard]] tensor_list carried_by_gossip(U& inner, moments at_merge) {
  tensor_list out = inner.model();
  inner.slots([&](slot kind, tensor_list const& list) {
    if (kind == slot::weight || at_merge == moments::average) out.insert(out.end(), list.begin(), list.end());
  });
  return out;
}

/// Sets `round` to the largest of all ranks: whoever comes, or was cut off in the midst of a round, goes on
/// where the others are. A collective call.
template <collective C>
void agree_on_round(C& comm, i64& round) {
  std::array<i64, 1> mine{round}, most{};
  comm.all_reduce(const_view(mine, "gossip: round"), view(most, "gossip: round"), reduction::max).wait();
  round = most[0];
}

/// The tap at work on a site.
template <timing When>
template <class Site>
class gossip_round<When>::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  static_assert(point_to_point<C>, "limber: gossip needs a collective that models limber::point_to_point");

 public:
  static constexpr bool agreed = false;
  static constexpr bool unifies = false;  ///< models still differ after an exchange

  state(gossip_round tap, Site& at)
      : tap_(tap),
        model_(at.inner.model()),
        carried_(carried_by_gossip(at.inner, tap.at_merge)),
        plan_(plan_buckets(carried_, without_wire(at.buckets))),
        mine_(at.exec.make(plan_.where)),
        theirs_(at.exec.make(plan_.where)),
        mean_(at.exec, at.inner.values(), at.buckets),
        buffers_(at.exec, at.buffers, at.buckets) {}

  void attach(Site& at) {
    group_ = at.comm;
    agree_on_round(*group_, round_);
  }
  void pin(Site&) noexcept { calls_ = 0; }
  void pin_once(Site&) noexcept {}

  void count(i64, double) noexcept { ++calls_; }
  [[nodiscard]] bool due(Site const& at) const { return tap_.when(calls_, at.now); }

  /// One round: sends the model as it is, and averages in what comes.
  i64 run(Site& at) {
    calls_ = 0;
    int const own = group_->rank(), size = group_->size();
    auto const round = itinerary(own, size, crossings_of(tap_.how, size, tap_.seed, round_++));
    if (round.empty()) return 0;
    i64 parts = at.exec.norm(weighted{1}, out(mine_.parts), in(carried_)).total.finite ? 1 : 0;
    at.exec.wait(at.exec.record());
    for (auto const& message : round) {
      if (message.from == own) {
        for (auto const& b : plan_.buckets) group_->send(bucket_view(mine_, b), message.to);
        continue;
      }
      for (auto const& b : plan_.buckets) group_->recv(bucket_view(theirs_, b), message.from);
      if (!at.exec.norm(identity{}, in(theirs_.parts)).total.finite) continue;
      take_into_mean(at.exec, carried_, theirs_.parts, ++parts);
      at.exec.wait(at.exec.record());  // the next one comes into the same memory
    }
    at.inner.publish(at.exec);
    if (tap_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
    return 0;
  }

  /// Writes the mean of all models to the parameters, that of buffers to the buffers. A collective call.
  void average_into(Site& at, tensor_list const& values) {
    at.exec.each(copy{}, out(values), in(model_));
    mean_.run(at.exec, *group_, 1);
    buffers_.run(at.exec, *group_, 1);
  }

  template <class F, class Own>
  void visit(F const& f, Own const&) {
    f("round", tensor_view{reinterpret_cast<std::byte*>(&round_), 1, dtype::int64, {}});
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] i64 bytes() const noexcept {
    return mine_.bytes + theirs_.bytes + mean_.bytes() + buffers_.bytes();
  }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const { return period_of(tap_.when); }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(period());
    h.mix(static_cast<i64>(tap_.how));
    h.mix(static_cast<i64>(tap_.seed));
    h.mix(static_cast<i64>(tap_.at_merge));
  }

 private:
  gossip_round tap_;
  tensor_list model_;    // masters where there are any, the parameters elsewhere
  tensor_list carried_;  // the model, and what goes with it
  bucket_plan plan_;
  slab mine_, theirs_;
  weighted_mean<E, C> mean_, buffers_;
  C* group_ = nullptr;
  i64 round_ = 0;
  i64 calls_ = 0;  // updates since the last exchange
};

}  // namespace limber::sync

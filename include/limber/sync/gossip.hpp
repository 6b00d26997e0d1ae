// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap after the rule, in pairs: models are averaged with one random partner.

#include <limber/core/fingerprint.hpp>
#include <limber/core/random.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace limber::sync {

/// The partner of `rank` in round `round` of `size` ranks: a random matching, the same on every rank.
/// With an odd number one rank stays alone and is its own partner.
[[nodiscard]] inline int partner_of(int rank, int size, std::uint64_t seed, i64 round) {
  std::vector<std::pair<std::uint64_t, int>> order;
  for (int r = 0; r < size; ++r)
    order.emplace_back(random_bits(seed, static_cast<std::uint64_t>(round), static_cast<std::uint64_t>(r)),
                       r);
  std::ranges::sort(order);
  auto const at = std::ranges::find(order, rank, &std::pair<std::uint64_t, int>::second) - order.begin();
  auto const other = static_cast<std::size_t>(at ^ 1);
  return other < order.size() ? order[other].second : rank;
}

/// xᵢ, xⱼ ← (xᵢ + xⱼ) / 2 every `when`, over a random matching of all ranks.
///
/// State    none of its own; models stay apart, also after an exchange; `evaluate` shows their mean.
/// Choices  a matching keeps the mean of all models (pulling and pushing do not), and both partners hold the
///          same bits afterwards. A worker whose model is not finite takes its partner's; that one keeps its
///          own. Gradient history stays each worker's own.
/// Collectives  none but messages between partners. Needs a `point_to_point` collective.
template <timing When>
struct matching {
  When when;
  std::uint64_t seed;

  explicit matching(When w, std::uint64_t s = 0) : when(w), seed(s) {}

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

/// The tap at work on a site.
template <timing When>
template <class Site>
class matching<When>::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  static_assert(point_to_point<C>, "limber: gossip needs a collective that models limber::point_to_point");

 public:
  static constexpr bool agreed = false;
  static constexpr bool unifies = false;  ///< models still differ after an exchange

  state(matching tap, Site& at)
      : tap_(tap),
        model_(at.inner.model()),
        plan_(plan_buckets(model_, without_wire(at.buckets), at.use_order)),
        mine_(at.exec.make(plan_.where)),
        theirs_(at.exec.make(plan_.where)),
        mean_(at.exec, at.inner.values(), at.buckets),
        buffers_(at.exec, at.buffers, at.buckets) {}

  void attach(Site& at) { group_ = at.comm; }
  void pin(Site&) noexcept { calls_ = 0; }
  void pin_once(Site&) noexcept {}

  void count(i64, double) noexcept { ++calls_; }
  [[nodiscard]] bool due(Site const& at) const { return tap_.when(calls_, at.now); }

  /// Exchanges models with this round's partner.
  i64 run(Site& at) {
    calls_ = 0;
    int const own = group_->rank(), peer = partner_of(own, group_->size(), tap_.seed, round_++);
    if (peer == own) return 0;
    bool const sound = at.exec.norm(weighted{1}, out(mine_.parts), in(model_)).total.finite;
    at.exec.wait(at.exec.record());
    for (auto const& b : plan_.buckets) {
      tensor_view const from = bucket_view(mine_, b), to = bucket_view(theirs_, b);
      if (own < peer) group_->send(from, peer);
      group_->recv(to, peer);
      if (own > peer) group_->send(from, peer);
    }
    bool const other_sound = at.exec.norm(identity{}, in(theirs_.parts)).total.finite;
    if (sound && other_sound)
      at.exec.each(half_and_half{}, inout(model_), in(theirs_.parts));
    else if (other_sound)
      at.exec.each(copy{}, out(model_), in(theirs_.parts));
    at.inner.publish(at.exec);
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
    h.mix(static_cast<i64>(tap_.seed));
  }

 private:
  matching tap_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere
  bucket_plan plan_;
  slab mine_, theirs_;
  weighted_mean<E, C> mean_, buffers_;
  C* group_ = nullptr;
  i64 round_ = 0;
  i64 calls_ = 0;  // updates since the last exchange
};

}  // namespace limber::sync

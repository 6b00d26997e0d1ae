// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap after the rule, with a centre: models are pulled towards it, and it towards them.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/rule/descent.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

#include <array>
#include <deque>
#include <optional>

namespace limber::sync {

/// Every `when`, with everyone, towards the centre as it was before:
///
///     eᵢ = α (xᵢ − x̃);   xᵢ ← xᵢ − eᵢ;   x̃ ← x̃ + Σ eᵢ          α = moving_rate / workers
///
/// State    x̃, the centre: alike on all ranks, each of which keeps it. Models stay apart, also after an
///          exchange; `evaluate` shows the centre.
/// Choices  Σ xᵢ + x̃ is kept. A worker whose model is not finite pulls nobody and restarts from the centre.
///          Ranks count alike, whatever their samples: the force is between models, not gradients. So they do
///          where `at_merge` averages gradient history, which is then alike although the models are not.
/// Errors   std::invalid_argument unless moving_rate is in [0, 1].
template <timing When>
struct elastic {
  When when;
  double moving_rate;
  moments at_merge;

  elastic(When w, double rate, moments m = moments::keep) : when(w), moving_rate(rate), at_merge(m) {
    expects(rate >= 0 && rate <= 1, "elastic: moving_rate must be in [0, 1], got ", rate);
  }

  template <class Site>
  class state;
};

/// The tap at work on a site.
template <timing When>
template <class Site>
class elastic<When>::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;

 public:
  static constexpr bool agreed = true;
  static constexpr bool unifies = false;  ///< models still differ after an exchange

  state(elastic tap, Site& at)
      : tap_(tap),
        model_(at.inner.model()),
        plan_(plan_buckets(model_, without_wire(at.buckets), at.use_order)),
        centre_(at.exec.make(layout_of(model_))),
        packed_(at.exec.make(plan_.where)),
        reduced_(at.exec.make(plan_.where)),
        outer_(centre_.parts),
        buffers_(at.exec, at.buffers, at.buckets) {
    for (std::size_t i = 0; i < centre_.parts.size(); ++i) outer_.assign(static_cast<i64>(i), descent{});
    outer_.allocate(at.exec);
    if (tap_.at_merge == moments::average)
      at.inner.slots([&](slot kind, tensor_list const& list) {
        if (kind == slot::moment) histories_.emplace_back(at.exec, list, at.buckets);
      });
  }

  void attach(Site& at) { group_ = at.comm; }

  /// The centre starts at the model.
  void pin(Site& at) {
    pinned_ = 1;
    at.exec.each(copy{}, out(centre_.parts), in(model_));
    calls_ = 0;
    samples_ = 0;
  }
  void pin_once(Site& at) {
    if (pinned_ == 0) pin(at);
  }

  void count(i64 own, double) {
    ++calls_;
    samples_ += own;
  }
  [[nodiscard]] bool due(Site const& at) const { return tap_.when(calls_, at.now); }

  /// One exchange with the centre. @return the samples of all ranks since the last, agreed
  i64 run(Site& at) {
    double const alpha = tap_.moving_rate / static_cast<double>(group_->size());
    bool const sound =
        at.exec.norm(difference{1}, out(packed_.parts), in(centre_.parts), in(model_)).total.finite;
    if (!sound) at.exec.each(zero{}, out(packed_.parts));
    std::array<double, 1> mine{static_cast<double>(samples_)}, all{};
    at.exec.wait(at.exec.record());
    flights_.all_reduce(*group_, plan_, packed_, reduced_, const_view(mine, "elastic: samples"),
                        view(all, "elastic: samples"));
    for (auto& m : histories_) m.gather(at.exec, *group_, 1);
    buffers_.gather(at.exec, *group_, 1);
    // From here on nobody else is needed: a rank exchanges wholly or not at all.
    if (sound)
      at.exec.each(blend{alpha}, inout(model_), in(centre_.parts));
    else
      at.exec.each(copy{}, out(model_), in(centre_.parts));
    verdict const v = outer_.template step<false>(at.exec, reduced_.parts, alpha, 1);
    if (!v.applied)
      throw error({"sync", "elastic", 0, -1,
                   std::string(at.inner.values()[static_cast<std::size_t>(v.culprit)].name),
                   "the sum of the ranks' finite models overflows; the centre stays"});
    at.inner.publish(at.exec);
    if (tap_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
    for (auto& m : histories_) m.settle(at.exec);
    buffers_.settle(at.exec);
    calls_ = 0;
    samples_ = 0;
    return static_cast<i64>(all[0]);
  }

  /// Writes the centre to the parameters, the mean of buffers to the buffers.
  void average_into(Site& at, tensor_list const& values) {
    buffers_.run(at.exec, *group_, 1);
    at.exec.each(copy{}, out(values), in(centre_.parts));
  }

  template <class F, class Own>
  void visit(F const& f, Own const& own) {
    f("pinned", tensor_view{reinterpret_cast<std::byte*>(&pinned_), 1, dtype::int64, {}});
    own("samples", tensor_view{reinterpret_cast<std::byte*>(&samples_), 1, dtype::int64, {}});
    for (auto const& t : centre_.parts) f(text("centre/", t.name), t);
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] i64 bytes() const noexcept {
    i64 sum = centre_.bytes + packed_.bytes + reduced_.bytes + buffers_.bytes();
    for (auto const& m : histories_) sum += m.bytes();
    return sum;
  }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const { return period_of(tap_.when); }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(period());
    h.mix(tap_.moving_rate);
    h.mix(static_cast<i64>(tap_.at_merge));
  }

 private:
  elastic tap_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere
  bucket_plan plan_;
  slab centre_, packed_, reduced_;
  updater<descent> outer_;
  weighted_mean<E, C> buffers_;
  std::deque<weighted_mean<E, C>> histories_;  // of gradients, where they are averaged
  flights<C> flights_;
  C* group_ = nullptr;
  i64 pinned_ = 0;   // the centre was set
  i64 calls_ = 0;    // updates since the last exchange
  i64 samples_ = 0;  // that this rank applied in them
};

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap after the rule: models cross and are merged.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/rule_fingerprint.hpp>
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

/// What the outer rule of a merge is fed.
enum class outer_rate {
  plain,     ///< the difference of models, at the merge's own rate
  per_rate,  ///< the difference divided by the inner rate, at the merge's rate times that
};

/// Models cross `when`, with `who`, and merge by an outer rule applied to their mean difference.
///
///     d = Σ nᵢ (x̃ − xᵢ) / Σ nᵢ          nᵢ: samples that rank i applied since the last merge
///     x̃ ← How(x̃, d) at `rate`;   xᵢ ← x̃
///
/// With `outer_rate::per_rate` the outer rule sees d / η and steps at `rate` · η, η being the last rate of
/// the round that was not 0: its momentum then has the unit of a gradient and follows the schedule.
///
/// With `descent` at rate 1, the default, x̃ becomes the sample-weighted mean of the models.
///
/// State    x̃, the model at the last merge, and the outer rule's state: alike on all ranks.
/// Master   where a rule keeps a master copy, that is what crosses and what is merged.
/// Skips    a rank without samples, or whose model is not finite, weighs nothing and takes the result.
/// Slots    weight slots (moving averages) are averaged with the same weights; moments by `at_merge`.
template <timing When, class Who, update_rule How = descent>
struct merge {
  When when;
  Who who;
  How how;
  double rate;
  moments at_merge;
  outer_rate unit;

  merge(When w, Who o, How h = {}, double r = 1, moments m = moments::keep, outer_rate u = outer_rate::plain)
      : when(w), who(o), how(h), rate(r), at_merge(m), unit(u) {
    check(how);
    expects(rate >= 0 && math::finite(rate), "merge: rate must be a number of at least 0, got ", rate);
  }

  template <class Site>
  class state;
};

/// The tap at work on a site.
template <timing When, class Who, update_rule How>
template <class Site>
class merge<When, Who, How>::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  using G = group_type<Who, C>;

 public:
  static constexpr bool agreed = Who::agreed;
  static constexpr bool unifies = true;  ///< its group holds one model after a merge

  state(merge tap, Site& at)
      : tap_(tap),
        model_(at.inner.model()),
        plan_(plan_buckets(model_, without_wire(at.buckets), at.use_order)),
        anchor_(at.exec.make(layout_of(model_))),
        packed_(at.exec.make(plan_.where)),
        reduced_(at.exec.make(plan_.where)),
        outer_(anchor_.parts),
        buffers_(at.exec, at.buffers, at.buckets) {
    for (std::size_t i = 0; i < anchor_.parts.size(); ++i) outer_.assign(static_cast<i64>(i), tap.how);
    outer_.allocate(at.exec);
    at.inner.slots([&](slot kind, tensor_list const& list) {
      if (kind == slot::weight || tap_.at_merge == moments::average)
        means_.emplace_back(at.exec, list, at.buckets);
    });
  }

  void attach(Site& at) { group_.emplace(tap_.who.of(*at.comm)); }

  /// Takes the model as it is for the start of a round.
  void pin(Site& at) {
    pinned_ = 1;
    at.exec.each(copy{}, out(anchor_.parts), in(model_));
    calls_ = 0;
    samples_ = 0;
  }

  /// The first start of all; later the anchor is state, which may be finer than the parameters.
  void pin_once(Site& at) {
    if (pinned_ == 0) pin(at);
  }

  /// Counts one update at rate `eta`, in which this rank applied `own` samples.
  void count(i64 own, double eta) {
    ++calls_;
    samples_ += own;
    if (eta > 0) last_rate_ = eta;
  }
  [[nodiscard]] bool due(Site const& at) const { return tap_.when(calls_, at.now); }

  /// Merges the models of the group. @return the samples that went into them, agreed in the group
  i64 run(Site& at) {
    double const total = mean_difference(at);
    G& group = std::get<0>(*group_);
    for (auto& m : means_) m.gather(at.exec, group, weight(at));
    buffers_.gather(at.exec, group, weight(at));
    // From here on nobody else is needed: a rank merges wholly or not at all.
    if (total > 0) {
      double const per = tap_.unit == outer_rate::per_rate && last_rate_ > 0 ? last_rate_ : 1;
      verdict const v =
          outer_.template step<false>(at.exec, reduced_.parts, tap_.rate * per, nominal(at) / total / per);
      if (!v.applied)
        throw error({"sync", "merge", 0, -1,
                     std::string(at.inner.values()[static_cast<std::size_t>(v.culprit)].name),
                     "the sum of the ranks' finite models overflows; nothing was merged"});
    }
    for (auto& m : means_) m.settle(at.exec);
    buffers_.settle(at.exec);
    at.exec.each(copy{}, out(model_), in(anchor_.parts));  // masters are among the weight slots: after those
    at.inner.publish(at.exec);
    if (tap_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
    calls_ = 0;
    samples_ = 0;
    return static_cast<i64>(total);
  }

  /// Writes the mean of the models to the parameters, that of buffers to the buffers. Changes nothing
  /// else; the caller puts them back.
  void average_into(Site& at, tensor_list const& values) {
    buffers_.run(at.exec, std::get<0>(*group_), weight(at));
    double const total = mean_difference(at);
    double const factor = total > 0 ? nominal(at) / total : 0;
    at.exec.each(step_back{factor}, out(values), in(anchor_.parts), in(reduced_.parts));
  }

  /// Calls f(name, view) for what is alike on all ranks of the group, and g(name, view) for the rest.
  template <class F, class Own>
  void visit(F const& f, Own const& own) {
    f("pinned", tensor_view{reinterpret_cast<std::byte*>(&pinned_), 1, dtype::int64, {}});
    f("last_rate",
      tensor_view{
          reinterpret_cast<std::byte*>(&last_rate_), static_cast<i64>(sizeof last_rate_), dtype::uint8, {}});
    own("samples", tensor_view{reinterpret_cast<std::byte*>(&samples_), 1, dtype::int64, {}});
    for (auto const& t : anchor_.parts) f(text("anchor/", t.name), t);
    outer_.visit("outer/", [&](std::string const& name, tensor_view v, bool) { f(name, v); });
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] i64 bytes() const noexcept {
    i64 sum = anchor_.bytes + packed_.bytes + reduced_.bytes + outer_.slot_bytes() + buffers_.bytes();
    for (auto const& m : means_) sum += m.bytes();
    return sum;
  }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const { return period_of(tap_.when); }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(period());
    h.mix(tap_.rate);
    h.mix(static_cast<i64>(tap_.at_merge));
    h.mix(static_cast<i64>(tap_.unit));
    limber::detail::mix_rule(h, tap_.how);
  }

 private:
  [[nodiscard]] static double nominal(Site const& at) noexcept { return at.planned; }
  [[nodiscard]] double weight(Site const& at) const noexcept {
    return static_cast<double>(samples_) / nominal(at);
  }

  // reduced ← Σ wᵢ (x̃ − xᵢ); returns Σ nᵢ over the ranks that took part.
  double mean_difference(Site& at) {
    std::array<double, 1> mine{static_cast<double>(samples_)}, all{};
    if (!at.exec.norm(difference{weight(at)}, out(packed_.parts), in(anchor_.parts), in(model_))
             .total.finite) {
      at.exec.each(zero{}, out(packed_.parts));
      mine[0] = 0;
    }
    at.exec.wait(at.exec.record());
    flights_.all_reduce(std::get<0>(*group_), plan_, packed_, reduced_, const_view(mine, "merge: samples"),
                        view(all, "merge: samples"));
    return all[0];
  }

  merge tap_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere
  bucket_plan plan_;
  slab anchor_, packed_, reduced_;
  updater<How> outer_;
  weighted_mean<E, G> buffers_;
  std::deque<weighted_mean<E, G>> means_;
  flights<G> flights_;
  std::optional<group_of<Who, C>> group_;
  i64 pinned_ = 0;        // the anchor was set
  i64 calls_ = 0;         // updates since the last merge
  i64 samples_ = 0;       // that this rank applied in them
  double last_rate_ = 0;  // η of the last update at a rate that was not 0
};

}  // namespace limber::sync

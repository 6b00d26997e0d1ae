// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap after the rule, in fragments: parts of the model cross at their own times, while training goes on.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/rule_fingerprint.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/rule/descent.hpp>
#include <limber/sync/fragments.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/standing_reduction.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace limber::sync {

/// When fragments cross, and what becomes of the local model then.
struct stream {
  i64 period = 100;             ///< H, calls between two crossings of a fragment
  i64 fragments = 1;            ///< F
  i64 late = 0;                 ///< calls from sending to landing; less than period / fragments
  double mixing = 0;            ///< α, what stays of the local model at landing, in [0, 1)
  std::optional<dtype> wire{};  ///< bf16 or f16: what differences are cast to
};

/// The model crosses in fragments, fragment f at the calls t ≡ ⌊f H / F⌋ mod H, and lands `late` calls on:
///
///     dᶠ = Σ nᵢ (x̃ᶠ − xᵢᶠ) / Σ nᵢ           at call t: sent, and training goes on
///     x̃ᶠ ← How(x̃ᶠ, dᶠ) at `rate`;   xᵢᶠ ← α xᵢᶠ + (1 − α) x̃ᶠ       at call t + late
///
/// nᵢ are the samples behind xᵢᶠ − x̃ᶠ: what rank i applied since the last landing, and of those before as
/// much as the landing left of them, α. With α = 0 what was learnt in flight is lost, so it weighs nothing.
///
/// Shapes       fragments are whole tensors, nearly equal in size (`deal_fragments`).
/// State        x̃ and the outer rule's state, alike on all ranks; while something is in flight, what was
///              sent. The first round is shorter for all fragments but the first.
/// Collectives  one all-reduce of a fragment, F times a period, not waited for before it lands; buffers,
///              weight slots and averaged moments follow at the landing, and are waited for.
/// Wire         16 bits halve the bytes. x̃ and the outer rule stay in fp32; how the ranks' differences are
///              added up is the engine's affair (`threads`: in float, rounded once).
/// Skips        a rank without samples, or whose fragment is not finite, weighs nothing; a fragment that is
///              not finite when the others' lands is replaced by x̃.
/// Moments      by `at_merge`, at the landing and for the tensors that land.
/// Choices      with one fragment, late = 0 and α = 0 it is `merge`. finish() lands what is in flight, then
///              merges all fragments at once without mixing. Must be the only tap after the rule.
/// Paper        Douillard et al., Streaming DiLoCo with Overlapping Communication, 2025, arXiv:2501.18512.
template <update_rule How = descent>
struct streaming {
  stream flow;
  How how;
  double rate;
  moments at_merge;

  explicit streaming(stream s, How h = {}, double r = 1, moments m = moments::keep)
      : flow(s), how(h), rate(r), at_merge(m) {
    check(how);
    expects(flow.period >= 1, "streaming: period must be at least 1, got ", flow.period);
    expects(flow.fragments >= 1 && flow.fragments <= flow.period,
            "streaming: fragments must be at least 1 and at most the period, ", flow.period, ", got ",
            flow.fragments);
    expects(flow.late >= 0 && flow.late <= (flow.period - 1) / flow.fragments,
            "streaming: late must be at least 0 and less than period / fragments, ", flow.period, " / ",
            flow.fragments, ", got ", flow.late);
    expects(flow.mixing >= 0 && flow.mixing < 1, "streaming: mixing must be in [0, 1), got ", flow.mixing);
    expects(!flow.wire || *flow.wire == dtype::bf16 || *flow.wire == dtype::f16,
            "streaming: wire must be bf16 or f16, got ", name_of(flow.wire.value_or(dtype::f32)));
    expects(rate >= 0 && math::finite(rate), "streaming: rate must be a number of at least 0, got ", rate);
  }

  template <class Site>
  class state;
};

/// The tap at work on a site.
///
/// Memory   x̃ and the outer slots for the whole model; two buffers of the largest fragment, which all share:
///          what crosses in the gaps between tensors is left over from another, and nobody reads it.
template <update_rule How>
template <class Site>
class streaming<How>::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;

  struct fragment {
    std::vector<i64> places;          // of its tensors in the model
    tensor_list model;                // masters where there are any, the parameters elsewhere
    tensor_list masters, parameters;  // where these differ
    bucket_plan plan;
    slab anchor;
    updater<How> outer{tensor_list{}};
    slab packed, reduced;  // over memory that all fragments share
    std::deque<weighted_mean<E, C>> means;
    double samples = 0;  // behind model − anchor
  };

  struct facts {           // agreed on by all ranks
    i64 pinned = 0;        // anchors were set
    i64 seen = 0;          // progress.calls at the last call
    i64 assumed = 0;       // samples that progress was moved by since the last sending
    i64 flying = -1;       // the fragment in flight
    i64 sent_at = 0;       // of what is in flight: the call it was sent at,
    i64 sent_assumed = 0;  // the samples that progress was moved by before,
    double nominal = 1;    // and the planned samples
  };
  struct parcel_facts {  // this rank's own, of what is in flight
    double samples = 0;  // nᵢ
    double fresh = 0;    // samples that progress was not told of before
    double weight = 0;
  };
  enum field { weighed, fresh_samples, fields };

 public:
  static constexpr bool agreed = true;
  static constexpr bool unifies = true;  ///< finish() leaves one model

  state(streaming tap, Site& at) : tap_(tap), buffers_(at.exec, at.buffers, at.buckets) {
    tensor_list const model = at.inner.model();
    auto const dealt = deal_fragments(model, at.use_order, tap.flow.fragments);
    i64 largest = 0;
    for (std::size_t k = 0; k < dealt.size(); ++k) {
      fragments_.push_back(make(at, model, dealt[k], k));
      largest = std::max(largest, fragments_.back().plan.where.bytes);
    }
    layout const whole{{{0, largest, dtype::uint8, {}}}, largest};
    packed_ = at.exec.make(whole);
    reduced_ = at.exec.make(whole);
    fingerprint h;
    for (auto& f : fragments_) {
      f.packed = lent(packed_, f.plan.where);
      f.reduced = lent(reduced_, f.plan.where);
      plan_.buckets.insert(plan_.buckets.end(), f.plan.buckets.begin(), f.plan.buckets.end());
      h.mix(static_cast<i64>(f.plan.hash));
    }
    plan_.hash = h.value();
  }

  void attach(Site& at) { group_ = at.comm; }

  /// What was sent stays, to be sent again in the next group.
  void interrupt(Site&) noexcept {
    reduction_.drop();
    stepping_ = false;
  }
  /// Fragments that landed in the call that was cut off.
  [[nodiscard]] i64 landed() const noexcept { return landed_; }

  /// Takes the model as it is for the start of a round.
  void pin(Site& at) {
    reduction_.wait();
    for (auto& f : fragments_) {
      at.exec.each(copy{}, out(f.anchor.parts), in(f.model));
      f.samples = 0;
    }
    facts_ = {.pinned = 1, .seen = at.now.calls};
    calls_ = 0;
    fresh_ = 0;
  }
  void pin_once(Site& at) {
    if (facts_.pinned == 0) pin(at);
  }

  void count(i64 own, double) {
    ++calls_;
    fresh_ += own;
    for (auto& f : fragments_) f.samples += static_cast<double>(own);
  }
  // Every call, so that samples are known call by call. finish() does not ask.
  [[nodiscard]] bool due(Site const&) const {
    stepping_ = true;
    return true;
  }

  /// Lands and sends what is due; outside a step, everything. @return the samples that the calls since the
  /// last time count for
  i64 run(Site& at) {
    i64 const planned =
        static_cast<i64>(at.planned) * (at.now.calls - std::exchange(facts_.seen, at.now.calls));
    facts_.assumed += planned;
    bool const finishing = !std::exchange(stepping_, false);
    if (facts_.flying >= 0 && !reduction_.in_flight()) start(flying());  // training was resumed in between
    i64 correction = 0;
    if (facts_.flying >= 0 && (finishing || calls_ >= facts_.sent_at + tap_.flow.late))
      correction += land(at, tap_.flow.mixing);
    for (std::size_t k = 0; k < fragments_.size(); ++k) {
      if (!finishing && calls_ % tap_.flow.period != offset(k)) continue;
      send(at, k);
      if (finishing || tap_.flow.late == 0) correction += land(at, finishing ? 0 : tap_.flow.mixing);
    }
    if (finishing || (facts_.flying < 0 && fragments_.size() == 1 && tap_.flow.mixing == 0 &&
                      tap_.flow.late == 0 && calls_ % tap_.flow.period == 0))
      calls_ = 0;
    if (!finishing) landed_ = 0;
    return planned + correction;
  }

  /// Writes the mean of the models to the parameters, that of buffers to the buffers; nothing else changes.
  void average_into(Site& at, tensor_list const& values) {
    buffers_.run(at.exec, *group_, fragments_[0].samples / at.planned);
    flights<C> now;
    for (auto& f : fragments_) {
      bucket_plan const plan = plan_buckets(f.model, without_wire(at.buckets));
      slab const mine = at.exec.make(plan.where), all = at.exec.make(plan.where);
      std::array<double, 1> n{f.samples}, total{};
      if (!at.exec.norm(difference{f.samples / at.planned}, out(mine.parts), in(f.anchor.parts), in(f.model))
               .total.finite) {
        at.exec.each(zero{}, out(mine.parts));
        n[0] = 0;
      }
      at.exec.wait(at.exec.record());
      now.all_reduce(*group_, plan, mine, all, const_view(n, "streaming: samples"),
                     view(total, "streaming: samples"));
      double const factor = total[0] > 0 ? at.planned / total[0] : 0;
      tensor_list const shown = pick(values, f.places);
      at.exec.each(step_back{factor}, out(shown), in(f.anchor.parts), in(all.parts));
      at.exec.wait(at.exec.record());  // this fragment's memory goes
    }
  }

  /// Calls f(name, view) for what is alike on all ranks, and own(name, view) for the rest.
  template <class F, class Own>
  void visit(F const& f, Own const& own) {
    f("facts", bytes_of(facts_));
    own("fresh", bytes_of(fresh_));
    for (std::size_t k = 0; k < fragments_.size(); ++k) {
      fragment& p = fragments_[k];
      own(text("fragment", k, "/samples"), bytes_of(p.samples));
      for (auto const& t : p.anchor.parts) f(text("anchor/", t.name), t);
      p.outer.visit(text("outer", k, "/"), [&](std::string const& name, tensor_view v, bool) { f(name, v); });
    }
    if (facts_.flying < 0) return;
    own("flight/facts", bytes_of(sent_));
    for (auto const& t : flying().packed.parts) own(text("flight/", t.name), t);
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] i64 bytes() const noexcept {
    i64 sum = packed_.bytes + reduced_.bytes + buffers_.bytes();
    for (auto const& f : fragments_) {
      sum += f.anchor.bytes + f.outer.slot_bytes();
      for (auto const& m : f.means) sum += m.bytes();
    }
    return sum;
  }
  /// The buckets of all fragments, one fragment after the other.
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const noexcept { return tap_.flow.period; }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(tap_.flow.period);
    h.mix(tap_.flow.fragments);
    h.mix(tap_.flow.late);
    h.mix(tap_.flow.mixing);
    h.mix(tap_.rate);
    h.mix(static_cast<i64>(tap_.at_merge));
    limber::detail::mix_rule(h, tap_.how);
  }

 private:
  template <class T>
  [[nodiscard]] static tensor_view bytes_of(T& x) noexcept {
    return {reinterpret_cast<std::byte*>(&x), static_cast<i64>(sizeof x), dtype::uint8, {}};
  }

  [[nodiscard]] fragment make(Site& at, tensor_list const& model, std::vector<i64> const& places,
                              std::size_t k) {
    tensor_list const mine = pick(model, places);
    fragment f;
    f.places = places;
    f.model = mine;
    f.anchor = at.exec.make(layout_of(mine));
    for (i64 const i : places) {
      auto const& value = at.inner.values()[static_cast<std::size_t>(i)];
      auto const& master = model[static_cast<std::size_t>(i)];
      if (master.data == value.data) continue;
      f.masters.push_back(master);
      f.parameters.push_back(value);
    }
    bucket_options cuts = at.buckets;
    cuts.wire = tap_.flow.wire;
    std::vector<i64> order;
    for (i64 const i : at.use_order) {
      auto const here = std::ranges::find(places, i);
      if (here != places.end()) order.push_back(here - places.begin());
    }
    f.plan = plan_buckets(mine, cuts, order);
    for (auto& b : f.plan.buckets) b.name = text("fragment ", k, ", ", b.name);
    f.outer = updater<How>(f.anchor.parts);
    for (std::size_t i = 0; i < places.size(); ++i) f.outer.assign(static_cast<i64>(i), tap_.how);
    f.outer.allocate(at.exec);
    at.inner.slots([&](slot kind, tensor_list const& list) {
      if (kind != slot::weight && tap_.at_merge != moments::average) return;
      tensor_list of;  // masters are the model itself
      for (auto const& t : list)
        if (auto const x = std::ranges::find(mine, t.name, &tensor_view::name);
            x != mine.end() && x->data != t.data)
          of.push_back(t);
      if (!of.empty()) f.means.emplace_back(at.exec, of, at.buckets);
    });
    return f;
  }

  [[nodiscard]] i64 offset(std::size_t k) const noexcept {
    return static_cast<i64>(k) * tap_.flow.period / tap_.flow.fragments;
  }
  [[nodiscard]] fragment& flying() { return fragments_[static_cast<std::size_t>(facts_.flying)]; }

  void send(Site& at, std::size_t k) {
    fragment& f = fragments_[k];
    facts_.flying = static_cast<i64>(k);
    facts_.sent_at = calls_;
    facts_.sent_assumed = std::exchange(facts_.assumed, 0);
    facts_.nominal = at.planned;
    sent_ = {f.samples, static_cast<double>(std::exchange(fresh_, 0)), f.samples / at.planned};
    if (!at.exec.norm(difference{sent_.weight}, out(f.packed.parts), in(f.anchor.parts), in(f.model))
             .total.finite) {
      at.exec.each(zero{}, out(f.packed.parts));
      sent_.samples = sent_.fresh = 0;
    }
    at.exec.wait(at.exec.record());
    start(f);
  }

  void start(fragment const& f) {
    control_[0][weighed] = sent_.samples;
    control_[0][fresh_samples] = sent_.fresh;
    reduction_.start(*group_, f.plan, f.packed, f.reduced, const_view(control_[0], "streaming: samples"),
                     view(control_[1], "streaming: samples"));
  }

  // Takes in what is in flight. Returns how far progress was off when it was sent.
  i64 land(Site& at, double mixing) {
    reduction_.wait();
    fragment& f = flying();
    double const total = control_[1][weighed];
    for (auto& m : f.means) m.gather(at.exec, *group_, sent_.weight);
    if (facts_.flying == 0) buffers_.gather(at.exec, *group_, sent_.weight);
    // From here on nobody else is needed: a fragment lands wholly or not at all.
    if (total > 0) {
      verdict const v =
          f.outer.template step<false>(at.exec, f.reduced.parts, tap_.rate, facts_.nominal / total);
      if (!v.applied)
        throw error({"sync", "streaming", 0, -1,
                     std::string(f.model[static_cast<std::size_t>(v.culprit)].name),
                     "the sum of the ranks' finite models overflows; nothing was merged"});
    }
    for (auto& m : f.means) m.settle(at.exec);
    if (facts_.flying == 0) buffers_.settle(at.exec);
    if (mixing > 0 && at.exec.norm(identity{}, in(f.model)).total.finite) {
      at.exec.each(blend{1 - mixing}, inout(f.model), in(f.anchor.parts));
      f.samples *= mixing;
    } else {
      at.exec.each(copy{}, out(f.model), in(f.anchor.parts));
      f.samples = 0;
    }
    if (!f.masters.empty()) at.exec.each(copy{}, out(f.parameters), in(f.masters));
    if (tap_.at_merge == moments::reset) forget(at, f);
    facts_.flying = -1;
    ++landed_;
    return static_cast<i64>(control_[1][fresh_samples]) - facts_.sent_assumed;
  }

  // Resets the history of this fragment alone: what is frozen keeps its own.
  void forget(Site& at, fragment const& f) {
    auto const n = static_cast<i64>(at.inner.values().size());
    std::vector<i64> others;
    for (i64 i = 0; i < n; ++i)
      if (!at.inner.is_frozen(static_cast<std::size_t>(i)) && !std::ranges::binary_search(f.places, i))
        others.push_back(i);
    for (i64 const i : others) at.inner.freeze(i, true);
    at.inner.reset_moments(at.exec);
    for (i64 const i : others) at.inner.freeze(i, false);
  }

  streaming tap_;
  std::deque<fragment> fragments_;
  slab packed_, reduced_;
  bucket_plan plan_;
  weighted_mean<E, C> buffers_;
  C* group_ = nullptr;
  facts facts_;
  parcel_facts sent_;
  // On the heap, because the engine holds its address while the optimizer may be moved.
  std::vector<std::array<double, fields>> control_{2};
  i64 calls_ = 0;  // updates since the last time nothing was open
  i64 fresh_ = 0;  // samples that this rank applied since the last sending
  i64 landed_ = 0;
  mutable bool stepping_ = false;
  standing_reduction<C> reduction_;  // the last: it is ended before its memory goes
};

}  // namespace limber::sync

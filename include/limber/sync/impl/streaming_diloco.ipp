// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/rule/sgd.hpp>
#include <limber/sync/impl/stage_base.hpp>
#include <limber/sync/streaming_diloco.hpp>

#include <algorithm>
#include <exception>
#include <string>
#include <utility>
#include <vector>

namespace limber::sync {

LIMBER_FN std::vector<std::vector<i64>> deal_fragments(tensor_list const& tensors, std::vector<i64> use_order,
                                                       i64 fragments) {
  auto const length = [&](i64 i) { return tensors[static_cast<std::size_t>(i)].length; };
  i64 const filled = std::ranges::count_if(tensors, [](auto const& t) { return t.length > 0; });
  expects(fragments >= 1 && fragments <= std::max<i64>(1, filled),
          "streaming: fragments must be at least 1 and no more than the ", filled,
          " tensors that have elements, got ", fragments);
  if (use_order.empty())
    for (i64 i = 0; i < static_cast<i64>(tensors.size()); ++i) use_order.push_back(i);
  std::ranges::stable_sort(use_order, [&](i64 a, i64 b) { return length(a) > length(b); });
  auto const n = static_cast<std::size_t>(fragments);
  std::vector<std::vector<i64>> groups(n);
  std::vector<i64> elements(n);
  for (i64 const i : use_order) {
    auto const least = static_cast<std::size_t>(std::ranges::min_element(elements) - elements.begin());
    groups[least].push_back(i);
    elements[least] += length(i);
  }
  for (auto& g : groups) std::ranges::sort(g);
  return groups;
}

namespace detail {

/// The tensors at these places of a list.
[[nodiscard]] inline tensor_list pick(tensor_list const& from, std::vector<i64> const& places) {
  tensor_list some;
  for (i64 const i : places) some.push_back(from[static_cast<std::size_t>(i)]);
  return some;
}

/// A layout over the memory of `owner`, which must be large enough and outlive it.
[[nodiscard]] inline slab slab_within(slab const& owner, layout const& where) {
  return slab_over(flat_memory(owner.data(), [](std::byte*) {}), where);
}

/// The stage at work.
///
/// Memory   x̃ and the outer slots for the whole model; two buffers of the largest fragment, which all share:
///          the padding between tensors holds data of another fragment, is reduced with it and never read.
class streaming_state final : public model_stage_base {
  struct fragment {
    std::vector<i64> places;          // of its tensors in the model
    tensor_list model;                // masters where there are any, the parameters elsewhere
    tensor_list masters, parameters;  // where these differ
    bucket_plan plan;
    slab anchor;
    updater outer;
    slab packed, reduced;  // over memory that all fragments share
    std::vector<weighted_mean> means;
    double samples = 0;  // behind model − anchor
  };

  struct shared_facts {    // the same on all ranks
    i64 pinned = 0;        // anchors were set
    i64 seen = 0;          // progress.calls at the last call
    i64 assumed = 0;       // samples that progress was moved by since the last send
    i64 in_flight = -1;    // the fragment in flight
    i64 sent_at = 0;       // of what is in flight: the call it was sent at,
    i64 sent_assumed = 0;  // the samples that progress was moved by before,
    double nominal = 1;    // and the planned samples
  };
  struct sent_facts {    // this rank's own, of what is in flight
    double samples = 0;  // nᵢ
    double fresh = 0;    // samples that were not reported to progress before
    double weight = 0;
  };
  enum field { weighed, fresh_samples, fields };
  using control = std::array<double, fields>;

 public:
  streaming_state(streaming stage, training_context& at)
      : model_stage_base(at, every{stage.flow.period}, stage.at_merge), stage_(std::move(stage)) {
    unifies = true;  // finish() leaves one model
    plan_ = {};      // the buckets of all fragments, one fragment after the other
    auto const dealt = deal_fragments(model_, at.use_order, stage_.flow.fragments);
    i64 largest = 0;
    fragments_.reserve(dealt.size());
    for (std::size_t k = 0; k < dealt.size(); ++k) {
      fragments_.push_back(make_fragment(at, dealt[k], k));
      largest = std::max(largest, fragments_.back().plan.where.bytes);
    }
    layout const whole{{{0, largest, dtype::uint8, {}}}, largest};
    packed_ = make(at, whole);
    reduced_ = make(at, whole);
    fingerprint h;
    for (auto& f : fragments_) {
      f.packed = slab_within(packed_, f.plan.where);
      f.reduced = slab_within(reduced_, f.plan.where);
      plan_.buckets.insert(plan_.buckets.end(), f.plan.buckets.begin(), f.plan.buckets.end());
      h.mix(static_cast<i64>(f.plan.hash));
    }
    plan_.hash = h.value();
  }

  // Waits for what is in flight, so that ranks which all end here end without an error. While an exception
  // unwinds it, the requests are dropped instead, and the other ranks get an error.
  ~streaming_state() override {
    if (std::uncaught_exceptions() > exceptions_) return;
    try {
      operations_.wait();
    } catch (...) {  // any call that waits for a result reports it
    }
  }

  /// What was sent is kept, to be sent again in the next group.
  void interrupt(training_context&) override {
    operations_.drop();
    stepping_ = false;
  }
  /// Fragments that were applied in the call under way.
  [[nodiscard]] i64 completed() const override { return completed_; }

  /// Takes the model as it is for the start of a round.
  void start_round(training_context& at) override {
    operations_.wait();
    for (auto& f : fragments_) {
      at.exec.each(copy{}, out(f.anchor.parts), in(f.model));
      f.samples = 0;
    }
    facts_ = {.pinned = 1, .seen = at.now.calls};
    calls_ = samples_ = 0;
  }
  void start_first_round(training_context& at) override {
    if (facts_.pinned == 0) start_round(at);
  }

  void count(i64 own, double rate) override {
    model_stage_base::count(own, rate);
    for (auto& f : fragments_) f.samples += static_cast<double>(own);
  }
  // Every call, so that samples are known call by call. finish() does not ask.
  [[nodiscard]] bool due(training_context const&) const override {
    stepping_ = true;
    return true;
  }

  /// Applies and sends what is due; outside a step, everything. @return the samples that the calls since the
  /// last time count for
  i64 run(training_context& at) override {
    i64 const planned =
        static_cast<i64>(at.planned) * (at.now.calls - std::exchange(facts_.seen, at.now.calls));
    facts_.assumed += planned;
    bool const finishing = !std::exchange(stepping_, false);
    if (facts_.in_flight >= 0 && !operations_.in_flight())
      start(in_flight());  // training was resumed in between
    i64 correction = 0;
    if (facts_.in_flight >= 0 && (finishing || calls_ >= facts_.sent_at + stage_.flow.late))
      correction += apply_reduced(at, stage_.flow.mixing);
    for (std::size_t k = 0; k < fragments_.size(); ++k) {
      if (!finishing && calls_ % stage_.flow.period != offset(k)) continue;
      send(at, k);
      if (finishing || stage_.flow.late == 0)
        correction += apply_reduced(at, finishing ? 0 : stage_.flow.mixing);
    }
    if (finishing || (facts_.in_flight < 0 && fragments_.size() == 1 && stage_.flow.mixing == 0 &&
                      stage_.flow.late == 0 && calls_ % stage_.flow.period == 0))
      calls_ = 0;
    if (!finishing) completed_ = 0;
    return planned + correction;
  }

  /// Writes the mean of the models to `values`, that of buffers to the buffers; nothing else changes.
  void average_into(training_context& at, tensor_list const& values) override {
    buffers_.run(at.exec, group_, fragments_[0].samples / at.planned);
    bucket_operations operations;
    for (auto& f : fragments_) {
      bucket_plan const plan = plan_buckets(f.model, without_wire(at.buckets));
      slab const mine = at.exec.make(plan.where), all = at.exec.make(plan.where);
      std::array<double, 1> n{f.samples}, total{};
      if (!pack_finite(at.exec, difference{f.samples / at.planned}, mine.parts, in(f.anchor.parts),
                       in(f.model)))
        n[0] = 0;
      operations.all_reduce(group_, plan, mine, all, const_view(n, "streaming: samples"),
                            view(total, "streaming: samples"));
      double const factor = total[0] > 0 ? at.planned / total[0] : 0;
      tensor_list const shown = pick(values, f.places);
      at.exec.each(step_back{factor}, out(shown), in(f.anchor.parts), in(all.parts));
      at.exec.synchronize();  // this fragment's memory is freed
    }
  }

  void visit(kept shared, piece_visitor f) override {
    f("facts", shared, bytes_view(facts_));
    f("fresh", kept::round, bytes_view(samples_));
    for (std::size_t k = 0; k < fragments_.size(); ++k) {
      fragment& one = fragments_[k];
      f(text("fragment", k, "/samples"), kept::round, bytes_view(one.samples));
      visit_list(f, shared, "anchor/", one.anchor.parts);
      one.outer.visit(text("outer", k, "/"),
                      [&](std::string const& name, tensor_view v, bool) { f(name, shared, v); });
    }
    if (facts_.in_flight < 0) return;
    f("flight/facts", kept::round, bytes_view(sent_));
    visit_list(f, kept::round, "flight/", in_flight().packed.parts);
  }
  void mix(fingerprint& h) const override {
    mix_all(h, plan_.hash, period(), stage_.flow.fragments, stage_.flow.late, stage_.flow.mixing, stage_.rate,
            at_merge_);
    limber::detail::mix_rule(h, stage_.how.erased());
  }

 private:
  [[nodiscard]] fragment make_fragment(training_context& at, std::vector<i64> const& places, std::size_t k) {
    tensor_list const mine = pick(model_, places);
    fragment f;
    f.places = places;
    f.model = mine;
    f.anchor = make(at, layout_of(mine));
    for (i64 const i : places) {
      auto const& value = at.inner.values()[static_cast<std::size_t>(i)];
      auto const& master = model_[static_cast<std::size_t>(i)];
      if (master.data == value.data) continue;
      f.masters.push_back(master);
      f.parameters.push_back(value);
    }
    bucket_options cuts = at.buckets;
    cuts.wire = stage_.flow.wire;
    std::vector<i64> order;
    for (i64 const i : at.use_order) {
      auto const here = std::ranges::find(places, i);
      if (here != places.end()) order.push_back(here - places.begin());
    }
    f.plan = plan_buckets(mine, cuts, order);
    for (auto& b : f.plan.buckets) b.name = text("fragment ", k, ", ", b.name);
    f.outer = outer_updater(at.exec, f.anchor.parts, stage_.how.erased());
    bytes_ += f.outer.slot_bytes();
    each_averaged_slot(at.inner, at_merge_, [&](tensor_list const& list) {
      tensor_list some;  // masters are the model itself
      for (auto const& t : list)
        if (auto const x = std::ranges::find(mine, t.name, &tensor_view::name);
            x != mine.end() && x->data != t.data)
          some.push_back(t);
      if (!some.empty()) f.means.push_back(make_mean(at, some));
    });
    return f;
  }

  [[nodiscard]] i64 offset(std::size_t k) const noexcept {
    return static_cast<i64>(k) * stage_.flow.period / stage_.flow.fragments;
  }
  // The fragment in flight. @pre there is one
  [[nodiscard]] fragment& in_flight() { return fragments_[static_cast<std::size_t>(facts_.in_flight)]; }

  void send(training_context& at, std::size_t k) {
    fragment& f = fragments_[k];
    facts_.in_flight = static_cast<i64>(k);
    facts_.sent_at = calls_;
    facts_.sent_assumed = std::exchange(facts_.assumed, 0);
    facts_.nominal = at.planned;
    sent_ = {f.samples, static_cast<double>(std::exchange(samples_, 0)), f.samples / at.planned};
    if (!pack_finite(at.exec, difference{sent_.weight}, f.packed.parts, in(f.anchor.parts), in(f.model)))
      sent_.samples = sent_.fresh = 0;
    start(f);
  }

  void start(fragment const& f) {
    sent_control_[weighed] = sent_.samples;
    sent_control_[fresh_samples] = sent_.fresh;
    operations_.launch(group_, f.plan, f.packed, f.reduced, const_view(sent_control_, "streaming: samples"),
                       view(reduced_control_, "streaming: samples"));
  }

  // Applies the fragment in flight. Returns how far progress was off when it was sent.
  i64 apply_reduced(training_context& at, double mixing) {
    operations_.wait();
    fragment& f = in_flight();
    double const total = reduced_control_[weighed];
    for (auto& m : f.means) m.gather(at.exec, group_, sent_.weight);
    if (facts_.in_flight == 0) buffers_.gather(at.exec, group_, sent_.weight);
    // No communication after this point: a rank applies all of a fragment or nothing.
    if (total > 0)
      expect_finite_sum(f.outer.step(at.exec, f.reduced.parts, stage_.rate, facts_.nominal / total, false),
                        f.model, "streaming", "nothing was merged");
    for (auto& m : f.means) m.apply(at.exec);
    if (facts_.in_flight == 0) buffers_.apply(at.exec);
    if (mixing > 0 && at.exec.norm(identity{}, in(f.model)).total.finite) {
      at.exec.each(blend{1 - mixing}, inout(f.model), in(f.anchor.parts));
      f.samples *= mixing;
    } else {
      at.exec.each(copy{}, out(f.model), in(f.anchor.parts));
      f.samples = 0;
    }
    if (!f.masters.empty()) at.exec.each(copy{}, out(f.parameters), in(f.masters));
    if (at_merge_ == moments::reset) reset_moments(at, f);
    facts_.in_flight = -1;
    ++completed_;
    return static_cast<i64>(reduced_control_[fresh_samples]) - facts_.sent_assumed;
  }

  // Resets the history of this fragment alone: what is frozen keeps its own.
  void reset_moments(training_context& at, fragment const& f) {
    auto const n = static_cast<i64>(at.inner.values().size());
    std::vector<i64> others;
    for (i64 i = 0; i < n; ++i)
      if (!at.inner.is_frozen(static_cast<std::size_t>(i)) && !std::ranges::binary_search(f.places, i))
        others.push_back(i);
    for (i64 const i : others) at.inner.freeze(i, true);
    at.inner.reset_moments(at.exec);
    for (i64 const i : others) at.inner.freeze(i, false);
  }

  streaming stage_;
  std::vector<fragment> fragments_;
  slab packed_, reduced_;
  shared_facts facts_;
  sent_facts sent_;
  control sent_control_{}, reduced_control_{};
  i64 completed_ = 0;  // fragments applied in the call under way
  mutable bool stepping_ = false;
  int exceptions_ = std::uncaught_exceptions();  // when this object was made
  bucket_operations operations_;                 // destroyed before the memory that it uses
};

}  // namespace detail

LIMBER_FN streaming::streaming(stream s, any_rule h, double r, moments m)
    : flow(s), how(std::move(h)), rate(r), at_merge(m) {
  limber::detail::check_rule(how.erased());
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

LIMBER_FN limber::detail::owner<model_stage> streaming::start(training_context& at) const {
  return limber::detail::owner<model_stage>(new detail::streaming_state(*this, at));
}

LIMBER_FN exchange streaming_diloco::parts() const {
  sgd const outer{.momentum = outer_momentum, .nesterov = outer_momentum > 0};
  return exchange(gradients(every{1}, alone{}),
                  streaming(stream{period, fragments, late, mixing, wire}, outer, outer_lr, at_merge));
}

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap before the rule: gradients cross, then the rule steps.

#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/error_feedback.hpp>
#include <limber/sync/ready_buckets.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

#include <array>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::sync {

/// Gradients cross `when`, with `who`; in between they are accumulated.
///
///     ḡ = Σ bᵢ gᵢ / Σ bᵢ        over all samples of all ranks and calls since the last exchange
///
/// Weight   applied while packing as bᵢ / B_planned, so that 16-bit wires stay in range and equal
///          shares are exact; one multiplication by B_planned / Σ bᵢ follows, in the update itself.
/// Zero     a call or a rank without samples is legal and weighs nothing; if nobody has samples, no
///          update is made.
/// Overlap  a bucket whose tensors are all marked crosses while backward goes on; marks change no bit.
/// Control  Σ bᵢ, Σ bᵢ‖gᵢ‖² and the non-finite ranks travel in fp64 after the last bucket.
template <timing When, class Who>
struct gradients {
  When when;
  Who who;

  gradients(When w, Who o) : when(w), who(o) {}

  template <class Site>
  class state;
};

/// The tap at work on a site.
///
/// Memory   `sum`: what is accumulated, in the compute type. `sent`: what crosses, only where that is
///          something else (a 16-bit wire, single shards). `reduced`: what came back. With error
///          feedback the error, and `sum` even where nothing is accumulated: the next error is put there.
template <timing When, class Who>
template <class Site>
class gradients<When, Who>::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  using G = group_type<Who, C>;
  static constexpr bool crosses = !std::is_same_v<Who, alone>;

  // What travels beside the gradients, all of it summed.
  enum field { count, weighted_squares, contributions, bad_ranks, bad_rank_sum, fields };
  using control = std::array<double, fields>;

 public:
  static constexpr bool agreed = Who::agreed;

  state(gradients tap, Site& at)
      : tap_(tap),
        plan_(plan_buckets(at.gradients, bucketing(at), at.use_order)),
        buffers_(at.exec, at.buffers, at.buckets) {
    bool const casts = bucketing(at).wire.has_value();
    expects(!plan_.feedback.has_value() || at.shards == 0,
            "buckets: error_feedback keeps what each worker still owes, but logical_shards (here ", at.shards,
            ") must not depend on who computed what; use one of the two");
    if (plan_.feedback) error_.allocate(at.exec, at.gradients);
    bool const adds_up = at.shards > 0 || !casts || error_.kept() || !always_due(tap.when);
    if (adds_up) sum_ = at.exec.make(casts ? layout_of(at.gradients) : plan_.where);
    if (casts || at.shards > 0) sent_ = at.exec.make(plan_.where);
    if (crosses) reduced_ = at.exec.make(plan_.where);
  }

  /// Enters the group of `at.comm`.
  void attach(Site& at) {
    flights_.drop();
    ready_.close();
    group_.emplace(tap_.who.of(*at.comm));
  }

  /// Tensor i's gradient of the coming call, of n samples, is complete: packs the buckets that are, and
  /// starts their reductions. Nothing where nothing crosses in that call, or single shards do.
  void mark_ready(Site& at, i64 n, i64 i) {
    if constexpr (crosses) {
      if (!ready_.is_open()) {
        progress coming = at.now;
        ++coming.calls;
        if (at.shards > 0 || !tap_.when(calls_ + 1, coming)) return;
        settle_error(at);
        ready_.open(at.exec, plan_);
      }
      ready_.mark(i);
      while (bucket_part* const p = ready_.take_complete()) {
        pack_part(at, n, *p);
        at.exec.wait(at.exec.record());
        flights_.start(std::get<0>(*group_), plan_, sent(), reduced_, p->last);
      }
    }
  }

  /// Folds in the gradient of n samples; exchanges and updates if it is due.
  outcome step(Site& at, i64 n) {
    bool const due =
        at.shards > 0 ? calls_ + 1 >= at.calls_per_update : static_cast<bool>(tap_.when(calls_ + 1, at.now));
    if constexpr (!crosses)
      if (due && calls_ == 0) return direct(at, n);
    fold(at, n, due);
    ++calls_;
    if (at.shards > 0) gather_shards(at);
    return due ? land(at) : outcome{};
  }

  /// Exchanges what is open, if anything is.
  outcome finish(Site& at) {
    if (calls_ == 0) return {};
    if (error_.kept())
      at.exec.each(with_error({0, true}), out(sent_.parts), inout(sum_.parts), in(error_.owed()));
    else if (at.shards == 0 && has_wire())
      at.exec.each(copy{}, out(sent_.parts), in(sum_.parts));
    return land(at);
  }

  /// Gives up the open round: no update was made of it. @return the calls in it
  i64 interrupt(Site& at) {
    flights_.drop();
    ready_.close();
    at.exec.each(zero{}, out(at.gradients));
    return std::exchange(calls_, 0);
  }

  /// Calls f(name, view, how) for what is owed, f(name, view) for the accumulators while a round is open.
  template <class F>
  void visit(F const& f) {
    error_.visit([&](std::string const& name, tensor_view v) { f(name, v, kept::alike); },
                 [&](std::string const& name, tensor_view v) { f(name, v, kept::dealt); });
    if (calls_ == 0) return;
    // As bytes: it lies in the host's memory, whatever the executor.
    f("open/control",
      tensor_view{
          reinterpret_cast<std::byte*>(mine_.data()), static_cast<i64>(sizeof mine_), dtype::uint8, {}});
    f("open/samples", tensor_view{reinterpret_cast<std::byte*>(&own_), 1, dtype::int64, {}});
    for (auto const& t : sum_.parts) f(text("open/", t.name), t);
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] bool open() const noexcept { return calls_ > 0; }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const { return period_of(tap_.when); }
  [[nodiscard]] i64 bytes() const noexcept {
    return sum_.bytes + sent_.bytes + reduced_.bytes + error_.bytes() + buffers_.bytes();
  }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(static_cast<i64>(buffers_.hash()));
    h.mix(period());
  }

 private:
  // What does not cross is not cast.
  [[nodiscard]] static bucket_options bucketing(Site const& at) {
    return crosses ? at.buckets : without_wire(at.buckets);
  }
  [[nodiscard]] bool has_wire() const noexcept { return !sent_.parts.empty(); }
  // What crosses.
  [[nodiscard]] slab const& sent() const noexcept { return has_wire() ? sent_ : sum_; }
  [[nodiscard]] static double nominal(Site const& at) noexcept {
    return crosses ? at.planned : at.planned_share;
  }

  // Nothing to wait for: the rule reads the host's gradient itself.
  outcome direct(Site& at, i64 n) {
    outcome o{.calls = 1, .due = true};
    if (n == 0) {
      at.exec.each(zero{}, out(at.gradients));
      return o;
    }
    double const scale = at.gradient == gradient_is::mean ? 1.0 : 1.0 / static_cast<double>(n);
    verdict const v = at.inner.template step<true>(at.exec, at.gradients, at.rate, scale);
    o.applied = v.applied;
    o.skipped = !v.applied;
    o.culprit = v.culprit;
    o.culprit_rank = v.applied ? -1 : at.comm->rank();
    o.own_samples = v.applied ? n : 0;
    o.contributions = 1;
    o.weighted_squares = static_cast<double>(n) * v.mean_square;
    o.mean_square = v.mean_square;
    return o;
  }

  // Packs this call's gradient: onto what is open, and into what is sent when it is the last call.
  void fold(Site& at, i64 n, bool due) {
    auto const b = static_cast<double>(n);
    if (at.shards > 0)
      expects(n == 0 || calls_ * at.comm->size() + at.comm->rank() < at.shards, "step: rank ",
              at.comm->rank(), " has no logical shard in call ", calls_, " of this update, but ", n,
              " samples");
    double const square = pack_all(at, n, due);
    control here{};
    here[count] = b;
    if (n > 0) {
      bool const finite = math::finite(square), mean = at.gradient == gradient_is::mean;
      here[contributions] = 1;
      here[weighted_squares] = finite ? (mean ? b : 1 / b) * square : 0;
      here[bad_ranks] = finite ? 0 : 1;
      here[bad_rank_sum] = finite ? 0 : at.comm->rank();
    }
    if (calls_ == 0) {
      mine_ = {};
      own_ = 0;
    }
    own_ += n;
    if (at.shards > 0)
      shard_ = here;
    else
      for (std::size_t k = 0; k < fields; ++k) mine_[k] += here[k];
  }

  // The lists of a pack: whole, or those of some tensors.
  struct lists {
    tensor_list const &to, &sum, &owed, &gradients;
  };

  [[nodiscard]] pack pack_of(Site const& at, i64 n) const {
    double const b = at.gradient == gradient_is::mean ? static_cast<double>(n) : n > 0 ? 1.0 : 0.0;
    return {b / nominal(at), calls_ > 0 && at.shards == 0};
  }
  [[nodiscard]] pack_with_error with_error(pack f) const {
    return {f.weight, f.carry, plan_.feedback.value_or(dtype::bf16)};
  }

  // Calls run(functor, operands…) with the pack that is due. What holds nothing is only written.
  template <class Run>
  void pack_lists(pack f, bool sends, lists const& l, Run const& run) const {
    if (sends && error_.kept()) {
      if (f.carry)
        run(with_error(f), out(l.to), inout(l.sum), in(l.owed), inout(l.gradients));
      else
        run(with_error(f), out(l.to), out(l.sum), in(l.owed), inout(l.gradients));
    } else if (!f.carry) {
      run(f, out(sends ? l.to : l.sum), inout(l.gradients));
    } else if (sends) {
      run(f, out(l.to), in(l.sum), inout(l.gradients));
    } else {
      run(f, inout(l.sum), inout(l.gradients));
    }
  }

  // The error in the unit of this round's weights.
  void settle_error(Site& at) {
    if (error_.kept() && calls_ == 0) error_.rescale(at.exec, sum_, nominal(at));
  }

  // Returns Σ g² of this call's gradient, frozen tensors left out.
  double pack_all(Site& at, i64 n, bool due) {
    if (ready_.is_open()) return pack_rest(at, n);
    settle_error(at);
    bool const sends = at.shards > 0 || (due && has_wire());
    double square = 0;
    pack_lists(pack_of(at, n), sends, {sent_.parts, sum_.parts, error_.owed(), at.gradients},
               [&](auto const& f, auto const&... operands) {
                 norm_report const& report = at.exec.norm(f, operands...);
                 for (std::size_t i = 0; i < report.tensors.size(); ++i)
                   if (!at.inner.is_frozen(i)) square += report.tensors[i].square;
               });
    return square;
  }

  // The same where buckets are on their way: by tensor first, so that the order of additions is the same.
  double pack_rest(Site& at, i64 n) {
    while (bucket_part* const p = ready_.take()) pack_part(at, n, *p);
    squares_.assign(at.gradients.size(), 0);
    ready_.each([&](bucket_part const& p) {
      norm_report const& report = at.exec.report(p.norms);
      for (std::size_t k = 0; k < p.tensors.size(); ++k)
        squares_[static_cast<std::size_t>(p.tensors[k])] = report.tensors[k].square;
    });
    double square = 0;
    for (std::size_t i = 0; i < squares_.size(); ++i)
      if (!at.inner.is_frozen(i)) square += squares_[i];
    return square;
  }

  void pack_part(Site& at, i64 n, bucket_part& p) {
    auto take = [&](tensor_list& some, tensor_list const& all) {
      for (std::size_t k = 0; k < p.tensors.size() && !all.empty(); ++k)
        some[k] = all[static_cast<std::size_t>(p.tensors[k])];
    };
    take(p.to, sent_.parts);
    take(p.sum, sum_.parts);
    take(p.owed, error_.owed());
    take(p.gradients, at.gradients);
    pack_lists(pack_of(at, n), has_wire(), {p.to, p.sum, p.owed, p.gradients},
               [&](auto const& f, auto const&... operands) { at.exec.measure(p.norms, f, operands...); });
  }

  // Logical shards: each is sent by its owner and added in the order of shards, so that the sum does
  // not depend on how many workers there are.
  void gather_shards(Site& at) {
    G& group = std::get<0>(*group_);
    for (int q = 0; q < group.size(); ++q) {
      i64 const index = (calls_ - 1) * group.size() + q;
      if (index >= at.shards) break;
      // Also for what the shard before is still being read from.
      at.exec.wait(at.exec.record());
      slab const& data = q == group.rank() ? sent_ : reduced_;
      control facts = shard_;
      flights_.broadcast(group, plan_, data, view(facts, "control"), q);
      if (index == 0)
        at.exec.each(copy{}, out(sum_.parts), in(data.parts));
      else
        at.exec.each(accumulate{}, inout(sum_.parts), in(data.parts));
      for (std::size_t k = 0; k < fields; ++k) mine_[k] += facts[k];
    }
  }

  outcome land(Site& at) {
    G& group = std::get<0>(*group_);
    all_ = mine_;
    tensor_list const* mean = &sum_.parts;
    if (crosses && at.shards == 0) {
      at.exec.wait(at.exec.record());
      flights_.start(group, plan_, sent(), reduced_, plan_.buckets.size());
      flights_.finish(group, const_view(mine_, "control"), view(all_, "control"));
      ready_.close();
      mean = &reduced_.parts;
    }
    outcome o{.calls = calls_, .due = true};
    o.contributions = all_[contributions];
    o.weighted_squares = all_[weighted_squares];
    if (!(all_[count] > 0)) {
      calls_ = 0;
      return o;
    }
    // All that others are needed for comes before the update: it is made by all, or none.
    if constexpr (crosses) buffers_.gather(at.exec, group, static_cast<double>(own_) / nominal(at));
    calls_ = 0;
    verdict const v = at.inner.template step<false>(at.exec, *mean, at.rate, nominal(at) / all_[count]);
    o.mean_square = v.mean_square;
    o.applied = v.applied;
    if (!v.applied) {
      o.skipped = true;
      o.culprit = v.culprit;
      o.culprit_rank = all_[bad_ranks] == 1 ? static_cast<int>(all_[bad_rank_sum]) : -1;
      return o;
    }
    o.samples = static_cast<i64>(all_[count]);
    o.own_samples = own_;
    error_.commit(sum_, at.inner);
    if constexpr (crosses) buffers_.settle(at.exec);
    return o;
  }

  gradients tap_;
  bucket_plan plan_;
  weighted_mean<E, G> buffers_;
  slab sum_, sent_, reduced_;
  error_feedback error_;
  ready_buckets ready_;
  std::vector<double> squares_;  // of the tensors of a gradient that was packed in parts
  control mine_{}, all_{}, shard_{};
  std::optional<group_of<Who, C>> group_;
  flights<G> flights_;  // goes before what is in flight does
  i64 calls_ = 0;       // calls folded in since the last exchange
  i64 own_ = 0;         // this rank's samples among them
};

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap before the rule: gradients cross, then the rule steps.

#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

#include <array>
#include <optional>
#include <type_traits>
#include <utility>

namespace limber::sync {

/// Gradients cross `when`, with `who`; in between they are accumulated.
///
///     ḡ = Σ bᵢ gᵢ / Σ bᵢ        over all samples of all ranks and calls since the last exchange
///
/// Weight   applied while packing as bᵢ / B_planned, so that 16-bit wires stay in range and equal
///          shares are exact; one multiplication by B_planned / Σ bᵢ follows, in the update itself.
/// Zero     a call or a rank without samples is legal and weighs nothing; if nobody has samples, no
///          update is made.
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
///          something else (a 16-bit wire, single shards). `reduced`: what came back.
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
    bool const adds_up = at.shards > 0 || !casts || !always_due(tap.when);
    if (adds_up) sum_ = at.exec.make(casts ? layout_of(at.gradients) : plan_.where);
    if (casts || at.shards > 0) sent_ = at.exec.make(plan_.where);
    if (crosses) reduced_ = at.exec.make(plan_.where);
  }

  /// Enters the group of `at.comm`.
  void attach(Site& at) { group_.emplace(tap_.who.of(*at.comm)); }

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
    if (at.shards == 0 && has_wire()) at.exec.each(copy{}, out(sent_.parts), in(sum_.parts));
    return land(at);
  }

  /// Calls f(name, view) for the accumulators, while a round is open.
  template <class F>
  void visit(F const& f) {
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
    return sum_.bytes + sent_.bytes + reduced_.bytes + buffers_.bytes();
  }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(static_cast<i64>(buffers_.hash()));
    h.mix(period());
  }

 private:
  // What does not cross is not cast.
  [[nodiscard]] static bucket_options bucketing(Site const& at) {
    bucket_options o = at.buckets;
    if (!crosses) o.wire.reset();
    return o;
  }
  [[nodiscard]] bool has_wire() const noexcept { return !sent_.parts.empty(); }
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
    bool const mean = at.gradient == gradient_is::mean;
    double const weight = (mean ? b : n > 0 ? 1.0 : 0.0) / nominal(at);
    double const square = pack_into(at, {weight, calls_ > 0}, due);
    control here{};
    here[count] = b;
    if (n > 0) {
      bool const finite = math::finite(square);
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

  // Returns Σ g² of this call's gradient, frozen tensors left out. What holds nothing is only written.
  double pack_into(Site& at, pack f, bool due) {
    if (at.shards > 0) f.carry = false;
    bool const sends = at.shards > 0 || (due && has_wire());
    tensor_list const& to = sends ? sent_.parts : sum_.parts;
    norm_report const& report = !f.carry ? at.exec.norm(f, out(to), inout(at.gradients))
                                : sends  ? at.exec.norm(f, out(to), in(sum_.parts), inout(at.gradients))
                                         : at.exec.norm(f, inout(to), inout(at.gradients));
    double square = 0;
    for (std::size_t i = 0; i < report.tensors.size(); ++i)
      if (!at.inner.is_frozen(i)) square += report.tensors[i].square;
    return square;
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
    control all = mine_;
    tensor_list const* mean = &sum_.parts;
    if (crosses && at.shards == 0) {
      at.exec.wait(at.exec.record());
      flights_.all_reduce(group, plan_, has_wire() ? sent_ : sum_, reduced_, const_view(mine_, "control"),
                          view(all, "control"));
      mean = &reduced_.parts;
    }
    outcome o{.calls = std::exchange(calls_, 0), .due = true};
    o.contributions = all[contributions];
    o.weighted_squares = all[weighted_squares];
    if (!(all[count] > 0)) return o;
    verdict const v = at.inner.template step<false>(at.exec, *mean, at.rate, nominal(at) / all[count]);
    o.mean_square = v.mean_square;
    o.applied = v.applied;
    if (!v.applied) {
      o.skipped = true;
      o.culprit = v.culprit;
      o.culprit_rank = all[bad_ranks] == 1 ? static_cast<int>(all[bad_rank_sum]) : -1;
      return o;
    }
    o.samples = static_cast<i64>(all[count]);
    o.own_samples = own_;
    if constexpr (crosses) buffers_.run(at.exec, group, static_cast<double>(own_) / nominal(at));
    return o;
  }

  gradients tap_;
  bucket_plan plan_;
  weighted_mean<E, G> buffers_;
  slab sum_, sent_, reduced_;
  flights<G> flights_;
  std::optional<group_of<Who, C>> group_;
  control mine_{}, shard_{};
  i64 calls_ = 0;  // calls folded in since the last exchange
  i64 own_ = 0;    // this rank's samples among them
};

}  // namespace limber::sync

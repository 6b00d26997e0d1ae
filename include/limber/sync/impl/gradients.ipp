// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/gradient_buckets.hpp>
#include <limber/sync/gradients.hpp>
#include <limber/sync/impl/stage_base.hpp>

namespace limber::sync {

namespace detail {

/// The stage at work.
///
/// Memory   `sum`: what is accumulated, in the compute type. `sent`: what is sent, only where that is
///          something else (a 16-bit wire, single shards). `reduced`: what came back. With error
///          feedback the error, and `sum` even where nothing is accumulated: the next error is put there.
///          None where nothing crosses and nothing is accumulated.
class gradients_state final : public gradient_stage_base {
  // The facts that travel beside the gradients, and what must be equal on all ranks.
  static constexpr std::size_t agreed = gradient_fields, fields = agreed + agreement::fields;
  using control = std::array<double, fields>;

 public:
  LIMBER_COLD gradients_state(gradients stage, training_context& at)
      : gradient_stage_base(at, cuts_of(stage, at)), stage_(stage) {
    casts_ = cuts_of(stage, at).wire.has_value() && at.shards == 0;
    expects(!plan_.feedback.has_value() || at.shards == 0,
            "buckets: error_feedback keeps what each worker still owes, but logical_shards (here ", at.shards,
            ") must not depend on who computed what; use one of the two");
    if (plan_.feedback) error_.allocate(at.exec, at.gradients);
    bytes_ += error_.bytes();
    // The size of a part of the ranks is known when it is entered. An open round may be loaded before.
    allocate(at, stage.who.is_all() ? at.comm.size() : 1);
  }

  /// Enters the group of `at.comm`.
  void attach(training_context& at) override {
    operations_.drop();
    ready_.close();
    enter(stage_.who, at.comm);
    allocate(at, group_.size());
  }

  /// Tensor i's gradient of the coming call, of n samples, is complete: packs the buckets that are, and
  /// starts their reductions. Nothing where nothing crosses in that call, or single shards do.
  void mark_ready(training_context& at, i64 n, i64 i) override {
    if (!communicates_) return;
    if (!ready_.is_open()) {
      progress coming = at.now;
      ++coming.calls;
      if (at.shards > 0 || !stage_.when(calls_ + 1, coming)) return;
      choose_nominal(at, n);
      rescale_error(at);
      ready_.open(at.exec, plan_);
    }
    ready_.mark(i);
    while (bucket_part* const p = ready_.take_complete()) {
      pack_part(at, n, *p);
      at.exec.synchronize();
      operations_.start(group_, plan_, sent(), reduced_, p->last);
    }
  }

  /// Folds in the gradient of n samples; exchanges and updates if it is due.
  outcome step(training_context& at, i64 n) override {
    bool const due = at.shards > 0 ? calls_ + 1 >= at.calls_per_update
                                   : static_cast<bool>(stage_.when(calls_ + 1, at.now));
    if (!communicates_)
      if (due && calls_ == 0) return direct(at, n);
    accumulate_gradient(at, n, due);
    ++calls_;
    if (at.shards > 0) gather_shards(at);
    return due ? apply_reduced(at) : outcome{};
  }

  /// Exchanges what is open, if anything is.
  outcome finish(training_context& at) override {
    if (calls_ == 0) return {};
    if (error_.kept())
      at.exec.each(with_error({0, true}), out(sent_.parts), inout(sum_.parts), in(error_.residual()));
    else if (at.shards == 0 && has_wire())
      at.exec.each(copy{}, out(sent_.parts), in(sum_.parts));
    return apply_reduced(at);
  }

  /// Gives up the open round: no update was made of it. @return the calls in it
  LIMBER_COLD i64 interrupt(training_context& at) override {
    operations_.drop();
    ready_.close();
    at.exec.each(zero{}, out(at.gradients));
    return std::exchange(calls_, 0);
  }

  /// Shows the residual, and the accumulators while a round is open.
  LIMBER_COLD void visit(piece_visitor f) override {
    error_.visit(f);
    if (casts_) f("wire/samples", kept::replicated, bytes_view(weighted_by_));
    if (calls_ == 0) return;
    // As bytes: it lies in the host's memory, whatever the executor.
    f("open/control", kept::round, bytes_view(mine_));
    f("open/samples", kept::round, number_view(own_));
    visit_list(f, kept::round, "open/", sum_.parts);
  }

  [[nodiscard]] bool communicates() const override { return communicates_; }
  [[nodiscard]] i64 period() const override { return stage_.when.period(); }
  void mix(fingerprint& h) const override { mix_all(h, plan_.hash, buffers_.hash(), period()); }

 private:
  // What is not communicated is not cast.
  [[nodiscard]] static bucket_options cuts_of(gradients const& stage, training_context const& at) {
    return stage.who.communicates() ? at.buckets : without_wire(at.buckets);
  }
  // Nothing crosses in a group of one, whose rule reads the host's gradient where it lies, unless what would
  // have crossed is other numbers: rounded to a wire, by shards, or as the collective adds pieces.
  LIMBER_COLD void allocate(training_context& at, int size) {
    bool const casts = cuts_of(stage_, at).wire.has_value();
    bool const as_it_lies = !casts && at.shards == 0 && (at.comm.can() & sums_tensor_pieces) == 0;
    communicates_ = stage_.who.communicates() && (size > 1 || !as_it_lies);
    auto const need = [&](slab& memory, bool needed, layout const& where) {
      if (needed && memory.parts.empty()) memory = make(at, where);
    };
    bool const adds_up = at.shards > 0 || error_.kept() || !stage_.when.always();
    need(sum_, adds_up || (communicates_ && !casts), casts ? layout_of(at.gradients) : plan_.where);
    need(sent_, at.shards > 0 || (communicates_ && casts), plan_.where);
    need(reduced_, communicates_, plan_.where);
    if (norms_.tensors == 0 && (communicates_ || adds_up))
      norms_ = make_norms(at.exec, static_cast<i64>(at.gradients.size()));
  }
  [[nodiscard]] bool has_wire() const noexcept { return !sent_.parts.empty(); }
  // What is communicated.
  [[nodiscard]] slab const& sent() const noexcept { return has_wire() ? sent_ : sum_; }
  // Samples that weights are relative to.
  [[nodiscard]] double nominal(training_context const& at) const noexcept {
    return weighted_by_.samples > 0 ? weighted_by_.samples : communicates_ ? at.planned : at.planned_share;
  }
  // In 16 bits a weight far from 1 overflows or vanishes: where the counted batch is far from the planned
  // one, weights are relative to the batch of the round before; of the first round, to its own, which costs
  // one small reduction. A collective call, the same on all ranks.
  void choose_nominal(training_context& at, i64 n) {
    if (calls_ > 0 || !casts_) return;
    double& last = weighted_by_.last;
    if (last == 0) {
      std::array<double, 1> const mine{static_cast<double>(n)};
      std::array<double, 1> all{};
      group_.all_reduce(const_view(mine, "samples"), view(all, "samples")).wait();
      last = all[0] * static_cast<double>(stage_.when.period());
    }
    double const planned = at.planned * static_cast<double>(stage_.when.period());
    bool const far = last > 4 * planned || (last > 0 && last < planned / 4);
    weighted_by_.samples = far ? last : 0;
  }

  // Nothing to wait for: the rule reads the host's gradient itself.
  outcome direct(training_context& at, i64 n) {
    outcome o{.calls = 1, .due = true};
    if (n == 0) {
      at.exec.each(zero{}, out(at.gradients));
      return o;
    }
    double const scale = at.gradient == gradient_is::mean ? 1.0 : 1.0 / static_cast<double>(n);
    enter_result(o, at.inner.step(at.exec, at.gradients, at.rate, scale, true), at.comm.rank());
    o.samples = o.own_samples = o.applied ? n : 0;
    o.contributions = 1;
    o.weighted_squares = static_cast<double>(n) * o.mean_square;
    return o;
  }

  // Packs this call's gradient: onto what is open, and into what is sent when it is the last call.
  void accumulate_gradient(training_context& at, i64 n, bool due) {
    if (at.shards > 0)
      expects(n == 0 || calls_ * at.comm.size() + at.comm.rank() < at.shards, "step: rank ", at.comm.rank(),
              " has no logical shard in call ", calls_, " of this update, but ", n, " samples");
    auto const facts = facts_of_call(at, n, pack_all(at, n, due), at.comm.rank());
    control here{};
    for (std::size_t k = 0; k < facts.size(); ++k) here[k] = facts[k];
    if (calls_ == 0) {
      mine_ = {};
      own_ = 0;
    }
    own_ += n;
    if (at.shards > 0) {
      agreement::write(&here[agreed], at, static_cast<int>(at.shards));
      shard_ = here;
    } else {
      for (std::size_t k = 0; k < fields; ++k) mine_[k] += here[k];
    }
  }

  // The lists of a pack: whole, or those of some tensors.
  struct lists {
    tensor_list const &to, &sum, &residual, &gradients;
  };

  [[nodiscard]] pack pack_of(training_context const& at, i64 n) const {
    return {weight_of(at, n) / nominal(at), calls_ > 0 && at.shards == 0};
  }
  [[nodiscard]] pack_with_error with_error(pack f) const {
    return {f.weight, f.carry, plan_.feedback.value_or(dtype::bf16)};
  }

  // The pack that is due, and Σ g² into `to`. What holds nothing is only written.
  void pack_lists(any_executor& e, norm_memory& to, pack f, bool sends, lists const& l) const {
    if (sends && error_.kept()) {
      if (f.carry)
        e.measure(to, with_error(f), out(l.to), inout(l.sum), in(l.residual), inout(l.gradients));
      else
        e.measure(to, with_error(f), out(l.to), out(l.sum), in(l.residual), inout(l.gradients));
    } else if (!f.carry) {
      e.measure(to, f, out(sends ? l.to : l.sum), inout(l.gradients));
    } else if (sends) {
      e.measure(to, f, out(l.to), in(l.sum), inout(l.gradients));
    } else {
      e.measure(to, f, inout(l.sum), inout(l.gradients));
    }
  }

  // The error in the unit of this round's weights.
  void rescale_error(training_context& at) {
    if (error_.kept() && calls_ == 0) error_.rescale(at.exec, sum_, nominal(at));
  }

  // Returns Σ g² of this call's gradient, frozen tensors left out.
  double pack_all(training_context& at, i64 n, bool due) {
    if (ready_.is_open()) return pack_rest(at, n);
    choose_nominal(at, n);
    rescale_error(at);
    bool const sends = at.shards > 0 || (due && has_wire());
    pack_lists(at.exec, norms_, pack_of(at, n), sends,
               {sent_.parts, sum_.parts, error_.residual(), at.gradients});
    return square_of(at.inner, at.exec.report(norms_));
  }

  // The same where buckets are on their way: by tensor first, so that the order of additions is the same.
  double pack_rest(training_context& at, i64 n) {
    while (bucket_part* const p = ready_.take()) pack_part(at, n, *p);
    squares_.assign(at.gradients.size(), 0);
    for (auto const& p : ready_.parts()) {
      norm_report const& report = at.exec.report(p.norms);
      for (std::size_t k = 0; k < p.tensors.size(); ++k)
        squares_[static_cast<std::size_t>(p.tensors[k])] = report.tensors[k].square;
    }
    return square_of(at.inner, [&](std::size_t i) { return squares_[i]; });
  }

  void pack_part(training_context& at, i64 n, bucket_part& p) {
    auto take = [&](tensor_list& some, tensor_list const& all) {
      for (std::size_t k = 0; k < p.tensors.size() && !all.empty(); ++k)
        some[k] = all[static_cast<std::size_t>(p.tensors[k])];
    };
    take(p.to, sent_.parts);
    take(p.sum, sum_.parts);
    take(p.residual, error_.residual());
    take(p.gradients, at.gradients);
    pack_lists(at.exec, p.norms, pack_of(at, n), has_wire(), {p.to, p.sum, p.residual, p.gradients});
  }

  // Logical shards: each is sent by its owner and added in the order of shards, so that the sum does
  // not depend on how many workers there are.
  LIMBER_COLD void gather_shards(training_context& at) {
    for (int q = 0; q < group_.size(); ++q) {
      i64 const index = (calls_ - 1) * group_.size() + q;
      if (index >= at.shards) break;
      // Also for what the shard before is still being read from.
      at.exec.synchronize();
      slab const& data = q == group_.rank() ? sent_ : reduced_;
      control facts = shard_;
      operations_.broadcast(group_, plan_, data, view(facts, "control"), q);
      if (index == 0)
        at.exec.each(copy{}, out(sum_.parts), in(data.parts));
      else
        at.exec.each(limber::accumulate{}, inout(sum_.parts), in(data.parts));
      for (std::size_t k = 0; k < fields; ++k) mine_[k] += facts[k];
    }
  }

  outcome apply_reduced(training_context& at) {
    if (at.shards == 0) agreement::write(&mine_[agreed], at, group_.size());
    all_ = mine_;
    tensor_list const* mean = &sum_.parts;
    if (communicates_ && at.shards == 0) {
      at.exec.synchronize();
      operations_.start(group_, plan_, sent(), reduced_, plan_.buckets.size());
      operations_.finish(group_, const_view(mine_, "control"), view(all_, "control"));
      ready_.close();
      mean = &reduced_.parts;
    }
    if (communicates_) agreement::expect(&all_[agreed], at, group_);
    weighted_by_.last = all_[count];
    outcome o{.calls = calls_, .due = true};
    o.contributions = all_[contributions];
    o.weighted_squares = all_[weighted_squares];
    if (!(all_[count] > 0)) {
      calls_ = 0;
      return o;
    }
    // All that others are needed for comes before the update: it is made by all, or none.
    if (communicates_) buffers_.gather(at.exec, group_, static_cast<double>(own_) / nominal(at));
    calls_ = 0;
    enter_result(o, at.inner.step(at.exec, *mean, at.rate, nominal(at) / all_[count], false),
                 bad_rank(all_.data()));
    o.overflowed = !o.applied && all_[bad_ranks] == 0;
    if (!o.applied) return o;
    o.samples = static_cast<i64>(all_[count]);
    o.own_samples = own_;
    error_.commit(sum_, at.inner);
    if (communicates_) buffers_.apply(at.exec);
    return o;
  }

  gradients stage_;
  bool communicates_ = false;
  slab sum_, sent_, reduced_;
  error_feedback error_;
  norm_memory norms_;  // of a whole gradient
  ready_buckets ready_;
  std::vector<double> squares_;  // of the tensors of a gradient that was packed in parts
  control mine_{}, all_{}, shard_{};
  bucket_operations operations_;  // destroyed before the memory and the group that it uses
  bool casts_ = false;            // to 16 bits
  struct {
    double samples = 0;  // that weights are relative to; 0: the planned batch
    double last = 0;     // samples of the exchange before
  } weighted_by_;        // the same on all ranks
  i64 own_ = 0;          // this rank's samples among them
};

}  // namespace detail

LIMBER_FN limber::detail::owner<gradient_stage> gradients::start(training_context& at) const {
  return limber::detail::owner<gradient_stage>(new detail::gradients_state(*this, at));
}

}  // namespace limber::sync

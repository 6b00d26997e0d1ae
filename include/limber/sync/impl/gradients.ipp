// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/functors.hpp>
#include <limber/sync/agreement.hpp>
#include <limber/sync/bucket_operations.hpp>
#include <limber/sync/error_feedback.hpp>
#include <limber/sync/gradients.hpp>
#include <limber/sync/ready_buckets.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace limber::sync {

namespace detail {

/// The stage at work.
///
/// Memory   `sum`: what is accumulated, in the compute type. `sent`: what is sent, only where that is
///          something else (a 16-bit wire, single shards). `reduced`: what came back. With error
///          feedback the error, and `sum` even where nothing is accumulated: the next error is put there.
class gradients_state final : public gradient_stage {
  // What travels beside the gradients, all of it summed.
  enum field {
    count,
    weighted_squares,
    contributions,
    bad_ranks,
    bad_rank_sum,
    agreed,
    fields = agreed + agreement::fields
  };
  using control = std::array<double, fields>;

 public:
  gradients_state(gradients stage, training_context& at)
      : stage_(stage),
        communicates_(stage.who.communicates()),
        plan_(plan_buckets(at.gradients, bucketing(at), at.use_order)),
        buffers_(at.exec, at.buffers, at.buckets) {
    bool const casts = bucketing(at).wire.has_value();
    casts_ = casts && communicates_ && at.shards == 0;
    expects(!plan_.feedback.has_value() || at.shards == 0,
            "buckets: error_feedback keeps what each worker still owes, but logical_shards (here ", at.shards,
            ") must not depend on who computed what; use one of the two");
    if (plan_.feedback) error_.allocate(at.exec, at.gradients);
    bool const adds_up = at.shards > 0 || !casts || error_.kept() || !stage.when.always();
    if (adds_up) sum_ = at.exec.make(casts ? layout_of(at.gradients) : plan_.where);
    if (casts || at.shards > 0) sent_ = at.exec.make(plan_.where);
    if (communicates_) reduced_ = at.exec.make(plan_.where);
  }

  /// Enters the group of `at.comm`.
  void attach(training_context& at) override {
    operations_.drop();
    ready_.close();
    group_.enter(stage_.who, at.comm);
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
      operations_.start(group_.comm(), plan_, sent(), reduced_, p->last);
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
  i64 interrupt(training_context& at) override {
    operations_.drop();
    ready_.close();
    at.exec.each(zero{}, out(at.gradients));
    return std::exchange(calls_, 0);
  }

  /// Calls f(name, view, how) for what is residual, f(name, view) for the accumulators while a round is open.
  void visit(piece_visitor f) override {
    error_.visit([&](std::string const& name, tensor_view v) { f(name, kept::replicated, v); },
                 [&](std::string const& name, tensor_view v) { f(name, kept::partial, v); });
    if (casts_)
      f("wire/samples", kept::replicated,
        tensor_view{reinterpret_cast<std::byte*>(&weighted_by_),
                    static_cast<i64>(sizeof weighted_by_),
                    dtype::uint8,
                    {}});
    if (calls_ == 0) return;
    // As bytes: it lies in the host's memory, whatever the executor.
    f("open/control", kept::round,
      tensor_view{
          reinterpret_cast<std::byte*>(mine_.data()), static_cast<i64>(sizeof mine_), dtype::uint8, {}});
    f("open/samples", kept::round, tensor_view{reinterpret_cast<std::byte*>(&own_), 1, dtype::int64, {}});
    for (auto const& t : sum_.parts) f(text("open/", t.name), kept::round, t);
  }

  [[nodiscard]] i64& calls_open() noexcept override { return calls_; }
  [[nodiscard]] bool open() const noexcept override { return calls_ > 0; }
  [[nodiscard]] bucket_plan const& plan() const noexcept override { return plan_; }
  [[nodiscard]] i64 period() const override { return stage_.when.period(); }
  [[nodiscard]] i64 bytes() const noexcept override {
    return sum_.bytes + sent_.bytes + reduced_.bytes + error_.bytes() + buffers_.bytes();
  }
  void mix(fingerprint& h) const override {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(static_cast<i64>(buffers_.hash()));
    h.mix(period());
  }

 private:
  // What is not communicated is not cast.
  [[nodiscard]] bucket_options bucketing(training_context const& at) const {
    return communicates_ ? at.buckets : without_wire(at.buckets);
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
      group_.comm().all_reduce(const_view(mine, "samples"), view(all, "samples")).wait();
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
    step_result const v = at.inner.step(at.exec, at.gradients, at.rate, scale, true);
    o.applied = v.applied;
    o.skipped = !v.applied;
    o.culprit = v.culprit;
    o.culprit_rank = v.applied ? -1 : at.comm.rank();
    o.own_samples = v.applied ? n : 0;
    o.contributions = 1;
    o.weighted_squares = static_cast<double>(n) * v.mean_square;
    o.mean_square = v.mean_square;
    return o;
  }

  // Packs this call's gradient: onto what is open, and into what is sent when it is the last call.
  void accumulate_gradient(training_context& at, i64 n, bool due) {
    auto const b = static_cast<double>(n);
    if (at.shards > 0)
      expects(n == 0 || calls_ * at.comm.size() + at.comm.rank() < at.shards, "step: rank ", at.comm.rank(),
              " has no logical shard in call ", calls_, " of this update, but ", n, " samples");
    double const square = pack_all(at, n, due);
    control here{};
    here[count] = b;
    if (n > 0) {
      bool const finite = math::finite(square), mean = at.gradient == gradient_is::mean;
      here[contributions] = 1;
      here[weighted_squares] = finite ? (mean ? b : 1 / b) * square : 0;
      here[bad_ranks] = finite ? 0 : 1;
      here[bad_rank_sum] = finite ? 0 : at.comm.rank();
    }
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
        run(with_error(f), out(l.to), inout(l.sum), in(l.residual), inout(l.gradients));
      else
        run(with_error(f), out(l.to), out(l.sum), in(l.residual), inout(l.gradients));
    } else if (!f.carry) {
      run(f, out(sends ? l.to : l.sum), inout(l.gradients));
    } else if (sends) {
      run(f, out(l.to), in(l.sum), inout(l.gradients));
    } else {
      run(f, inout(l.sum), inout(l.gradients));
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
    double square = 0;
    pack_lists(pack_of(at, n), sends, {sent_.parts, sum_.parts, error_.residual(), at.gradients},
               [&](auto const& f, auto const&... operands) {
                 norm_report const& report = at.exec.norm(f, operands...);
                 for (std::size_t i = 0; i < report.tensors.size(); ++i)
                   if (!at.inner.is_frozen(i)) square += report.tensors[i].square;
               });
    return square;
  }

  // The same where buckets are on their way: by tensor first, so that the order of additions is the same.
  double pack_rest(training_context& at, i64 n) {
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

  void pack_part(training_context& at, i64 n, bucket_part& p) {
    auto take = [&](tensor_list& some, tensor_list const& all) {
      for (std::size_t k = 0; k < p.tensors.size() && !all.empty(); ++k)
        some[k] = all[static_cast<std::size_t>(p.tensors[k])];
    };
    take(p.to, sent_.parts);
    take(p.sum, sum_.parts);
    take(p.residual, error_.residual());
    take(p.gradients, at.gradients);
    pack_lists(pack_of(at, n), has_wire(), {p.to, p.sum, p.residual, p.gradients},
               [&](auto const& f, auto const&... operands) { at.exec.measure(p.norms, f, operands...); });
  }

  // Logical shards: each is sent by its owner and added in the order of shards, so that the sum does
  // not depend on how many workers there are.
  void gather_shards(training_context& at) {
    communicator group = group_.comm();
    for (int q = 0; q < group.size(); ++q) {
      i64 const index = (calls_ - 1) * group.size() + q;
      if (index >= at.shards) break;
      // Also for what the shard before is still being read from.
      at.exec.synchronize();
      slab const& data = q == group.rank() ? sent_ : reduced_;
      control facts = shard_;
      operations_.broadcast(group, plan_, data, view(facts, "control"), q);
      if (index == 0)
        at.exec.each(copy{}, out(sum_.parts), in(data.parts));
      else
        at.exec.each(limber::accumulate{}, inout(sum_.parts), in(data.parts));
      for (std::size_t k = 0; k < fields; ++k) mine_[k] += facts[k];
    }
  }

  outcome apply_reduced(training_context& at) {
    communicator group = group_.comm();
    if (at.shards == 0) agreement::write(&mine_[agreed], at, group.size());
    all_ = mine_;
    tensor_list const* mean = &sum_.parts;
    if (communicates_ && at.shards == 0) {
      at.exec.synchronize();
      operations_.start(group, plan_, sent(), reduced_, plan_.buckets.size());
      operations_.finish(group, const_view(mine_, "control"), view(all_, "control"));
      ready_.close();
      mean = &reduced_.parts;
    }
    if (communicates_) agreement::expect(&all_[agreed], at, group);
    weighted_by_.last = all_[count];
    outcome o{.calls = calls_, .due = true};
    o.contributions = all_[contributions];
    o.weighted_squares = all_[weighted_squares];
    if (!(all_[count] > 0)) {
      calls_ = 0;
      return o;
    }
    // All that others are needed for comes before the update: it is made by all, or none.
    if (communicates_) buffers_.gather(at.exec, group, static_cast<double>(own_) / nominal(at));
    calls_ = 0;
    step_result const v = at.inner.step(at.exec, *mean, at.rate, nominal(at) / all_[count], false);
    o.mean_square = v.mean_square;
    o.applied = v.applied;
    if (!v.applied) {
      o.skipped = true;
      o.culprit = v.culprit;
      o.overflowed = all_[bad_ranks] == 0;
      o.culprit_rank = all_[bad_ranks] == 1 ? static_cast<int>(all_[bad_rank_sum]) : -1;
      return o;
    }
    o.samples = static_cast<i64>(all_[count]);
    o.own_samples = own_;
    error_.commit(sum_, at.inner);
    if (communicates_) buffers_.apply(at.exec);
    return o;
  }

  gradients stage_;
  bool communicates_;
  bucket_plan plan_;
  weighted_mean buffers_;
  slab sum_, sent_, reduced_;
  error_feedback error_;
  ready_buckets ready_;
  std::vector<double> squares_;  // of the tensors of a gradient that was packed in parts
  control mine_{}, all_{}, shard_{};
  process_group group_;
  bucket_operations operations_;  // destroyed before the memory and the group that it uses
  bool casts_ = false;            // to 16 bits
  struct {
    double samples = 0;  // that weights are relative to; 0: the planned batch
    double last = 0;     // samples of the exchange before
  } weighted_by_;        // the same on all ranks
  i64 calls_ = 0;        // calls accumulated since the last exchange
  i64 own_ = 0;          // this rank's samples among them
};

}  // namespace detail

LIMBER_FN limber::detail::owner<gradient_stage> gradients::start(training_context& at) const {
  return limber::detail::owner<gradient_stage>(new detail::gradients_state(*this, at));
}

}  // namespace limber::sync

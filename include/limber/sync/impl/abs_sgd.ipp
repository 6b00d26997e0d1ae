// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/abs_sgd.hpp>
#include <limber/sync/impl/stage_base.hpp>
#include <limber/sync/tensor_message.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace limber::sync {

namespace detail {

/// The stage at work: `open_` accumulates while `sent_` is reduced into `reduced_`.
class abs_sgd_state final : public gradient_stage_base {
  enum field { finishing = gradient_fields, agreed, fields = agreed + agreement::fields };
  using control = std::array<double, fields>;

  static constexpr i64 ready_tag = 0x6162'7300;

 public:
  abs_sgd_state(abs_sgd stage, training_context& at)
      : gradient_stage_base(at, at.buckets),
        stage_(stage),
        open_(make(at, at.buckets.wire ? layout_of(at.gradients) : plan_.where)),
        sent_(make(at, plan_.where)),
        reduced_(make(at, plan_.where)) {
    expects(stage.min_micro_batches >= 1, "abs_sgd: min_micro_batches must be at least 1, got ",
            stage.min_micro_batches);
    expects(stage.max_micro_batches == 0 || stage.max_micro_batches >= stage.min_micro_batches,
            "abs_sgd: max_micro_batches must be 0 or at least ", stage.min_micro_batches, ", got ",
            stage.max_micro_batches);
    expects(stage.rate_limit >= 0 && math::finite(stage.rate_limit),
            "abs_sgd: rate_limit must be a number of at least 0, got ", stage.rate_limit);
    expects(!plan_.feedback,
            "abs_sgd: error_feedback is not there for delayed gradients; use a wire without it, or none");
  }

  /// Rounds are numbered on from the calls that progress counts, the same on all ranks.
  void attach(training_context& at) override {
    group_ = at.comm;
    round_ = at.now.calls;
    ready_rounds_.assign(static_cast<std::size_t>(group_.size()), round_ - 1);
  }

  /// Drops both rounds, the one in flight and the open one: no update was made of them.
  i64 interrupt(training_context& at) override {
    operations_.drop();
    in_flight_ = false;
    at.exec.each(zero{}, out(at.gradients));
    calls_ = 0;
    return 0;
  }

  /// Accumulates the gradient of n samples. Closes the round if it is ready: applies the one before and
  /// sends this one.
  outcome step(training_context& at, i64 n) override {
    accumulate(at, n);
    if (calls_ == stage_.min_micro_batches) post_ready();
    if (!may_close()) return {};
    outcome const o = apply_reduced(at);
    if (o.applied) committed_ = o;
    send(at, false);
    committed_.reset();
    return o;
  }
  /// Of the round that was applied, if the group failed when the next one was sent.
  [[nodiscard]] std::optional<outcome> committed() override { return std::exchange(committed_, {}); }

  /// Closes rounds until all ranks have called this, and applies them all.
  void drain(training_context& at, before_update before, on_update after) override {
    for (bool last = false; !last;) {
      if (calls_ < stage_.min_micro_batches) post_ready();
      before();
      after(apply_reduced(at));
      send(at, true);
      operations_.wait();
      last = reduced_control_[finishing] == group_.size();
    }
    before();
    after(apply_reduced(at));
    buffers_.run(at.exec, group_, 1);
    while (group_.poll(ready_tag)) {}
  }

  /// Nothing is open when state is taken; else an error says what to do.
  void visit(piece_visitor) override {
    expects(calls_ == 0 && !in_flight_,
            "abs_sgd: a round is open and another one crosses; call finish() before state is taken");
  }

  [[nodiscard]] bool open() const override { return calls_ > 0 || in_flight_; }
  void mix(fingerprint& h) const override {
    mix_all(h, plan_.hash, buffers_.hash(), stage_.min_micro_batches, stage_.max_micro_batches, stage_.rate,
            stage_.rate_limit);
  }

 private:
  void accumulate(training_context& at, i64 n) {
    pack const f{weight_of(at, n) / at.planned, calls_ > 0};
    norm_report const& report = f.carry ? at.exec.norm(f, inout(open_.parts), inout(at.gradients))
                                        : at.exec.norm(f, out(open_.parts), inout(at.gradients));
    auto const here = facts_of_call(at, n, square_of(at.inner, report), group_.rank());
    if (calls_++ == 0) open_control_ = {};
    for (auto const k : {count, weighted_squares, contributions}) open_control_[k] += here[k];
    if (here[bad_ranks] == 0) return;
    open_control_[bad_ranks] = 1;
    open_control_[bad_rank_sum] = here[bad_rank_sum];
  }

  // Posts to every other rank that this one has enough for the open round.
  void post_ready() {
    for (int r = 0; r < group_.size(); ++r)
      if (r != group_.rank()) group_.post(r, ready_tag, header_bytes(round_));
  }

  // A rank may be ready for the next round before this one has closed the open round.
  [[nodiscard]] bool all_ready() {
    while (auto const m = group_.poll(ready_tag)) {
      i64& last = ready_rounds_[static_cast<std::size_t>(m->source)];
      last = std::max(last, tensor_message::header_of<i64>(m->bytes));
    }
    ready_rounds_[static_cast<std::size_t>(group_.rank())] = round_;
    return std::ranges::all_of(ready_rounds_, [&](i64 r) { return r >= round_; });
  }

  [[nodiscard]] bool may_close() {
    if (stage_.replay) {
      round_log const& log = *stage_.replay;
      auto const open = std::find_if(log.begin() + replayed_, log.end(), [&](round_entry const& e) {
        return e.round == round_ && e.rank == group_.rank();
      });
      expects(open != log.end(), "replay: the log has no round ", round_, " of rank ", group_.rank());
      replayed_ = open - log.begin();
      return !open->last && calls_ >= open->calls;
    }
    if (stage_.max_micro_batches > 0 && calls_ >= stage_.max_micro_batches) return true;
    return calls_ >= stage_.min_micro_batches && all_ready() && operations_.done();
  }

  // Sends the open round and opens the next.
  void send(training_context& at, bool last) {
    if (calls_ == 0) {
      open_control_ = {};
      at.exec.each(zero{}, out(open_.parts));
    }
    if (stage_.log)
      stage_.log->push_back({round_, group_.rank(), calls_, static_cast<i64>(open_control_[count]), last});
    open_control_[finishing] = last ? 1 : 0;
    agreement::write(&open_control_[agreed], at, group_.size());
    sent_control_ = open_control_;
    if (at.buckets.wire)
      at.exec.each(copy{}, out(sent_.parts), in(open_.parts));
    else
      std::swap(open_, sent_);
    at.exec.synchronize();
    operations_.launch(group_, plan_, sent_, reduced_, const_view(sent_control_, "control"),
                       view(reduced_control_, "control"));
    in_flight_ = true;
    calls_ = 0;
    ++round_;
  }

  // Applies the round in flight, if there is one.
  outcome apply_reduced(training_context& at) {
    outcome o{.calls = calls_, .due = true};
    if (!std::exchange(in_flight_, false)) return o;
    operations_.wait();
    agreement::expect(&reduced_control_[agreed], at, group_);
    o.contributions = reduced_control_[contributions];
    o.weighted_squares = reduced_control_[weighted_squares];
    if (!(reduced_control_[count] > 0)) return o;
    enter_result(o,
                 at.inner.step(at.exec, reduced_.parts, at.rate * rate_factor(at),
                               at.planned / reduced_control_[count], false),
                 bad_rank(reduced_control_.data()));
    if (!o.applied) return o;
    o.samples = static_cast<i64>(reduced_control_[count]);
    o.own_samples = static_cast<i64>(sent_control_[count]);
    return o;
  }

  [[nodiscard]] double rate_factor(training_context const& at) const {
    double const k = reduced_control_[count] / at.planned;
    double const f = stage_.rate == round_rate::linear ? k
                     : stage_.rate == round_rate::sqrt ? math::sqrt(k)
                                                       : 1;
    return stage_.rate_limit > 0 ? std::min(f, stage_.rate_limit) : f;
  }

  abs_sgd stage_;
  slab open_, sent_, reduced_;
  std::vector<i64> ready_rounds_;  // the last round that each rank was ready for
  control open_control_{}, sent_control_{}, reduced_control_{};
  i64 round_ = 0;
  std::ptrdiff_t replayed_ = 0;  // entries of the log before the open round's
  bool in_flight_ = false;
  std::optional<outcome> committed_;
  bucket_operations operations_;  // destroyed before the memory that it uses
};

}  // namespace detail

LIMBER_FN limber::detail::owner<gradient_stage> abs_sgd::start(training_context& at) const {
  return limber::detail::owner<gradient_stage>(new detail::abs_sgd_state(*this, at));
}

LIMBER_FN exchange abs_sgd::parts() const { return exchange(*this); }

}  // namespace limber::sync

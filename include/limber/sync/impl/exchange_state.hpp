// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A strategy at work: what the optimizer drives.

#include <limber/core/function_ref.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/sync/exchange.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::sync {

/// A strategy at work.
class exchange_state {
 public:
  LIMBER_COLD explicit exchange_state(exchange parts)
      : parts_(std::move(parts)),
        server_(parts_.server()),
        uniform_updates_(parts_.before.facts().uniform_updates),
        lockstep_(parts_.before.facts().lockstep) {
    for (auto const& m : parts_.after) lockstep_ = lockstep_ && m.facts().lockstep;
  }
  /// Makes the stages. Called once, when the context has rules and a plan.
  LIMBER_COLD void start(training_context& at) {
    gradients_ = parts_.before.start(at);
    merges_.reserve(parts_.after.size());
    for (auto const& m : parts_.after) {
      merges_.push_back(m.start(at));
      unified_ = unified_ && merges_.back()->unifies;
    }
  }

  [[nodiscard]] exchange const& parts() const noexcept { return parts_; }
  /// All ranks apply the same update; else each applies its own until models are merged.
  [[nodiscard]] bool uniform_updates() const noexcept { return uniform_updates_; }
  /// All ranks call step() equally often.
  [[nodiscard]] bool lockstep() const noexcept { return lockstep_; }
  [[nodiscard]] int server() const noexcept { return server_; }
  [[nodiscard]] i64 contributors(i64 workers) const noexcept { return parts_.contributors(workers); }
  /// Calls of step() that one exchange of gradients takes.
  [[nodiscard]] i64 gradient_period() const noexcept { return parts_.before.facts().period; }

  /// Enters the groups of `at.comm`; called once control state is agreed on.
  void attach(training_context& at) {
    gradients_->attach(at);
    for (auto& m : merges_) m->attach(at);
  }
  /// Starts the first round from the model as it is.
  void start_first_round(training_context& at) {
    if (open()) return;
    for (auto& m : merges_) m->start_first_round(at);
  }
  /// Tensor i's gradient of the coming call, of n samples, is complete: what can be sent already is.
  void mark_ready(training_context& at, i64 n, i64 i) { gradients_->mark_ready(at, n, i); }
  /// One call: accumulates n samples' gradient, updates and merges what is due.
  outcome step(training_context& at, i64 n) {
    outcome o = gradients_->step(at, n);
    if (!o.due) return o;
    commit(at, o, true);
    merge_if(at, o, [&](model_stage& m) { return m.due(at); });
    left_.standing.reset();
    completed_ = 0;
    return o;
  }
  /// Closes what is open: exchanges accumulated gradients, merges models. Rounds that other ranks still
  /// need come first, each as in `serve`.
  outcome finish(training_context& at, before_update rate_of, on_update after) {
    gradients_->drain(at, rate_of, after);
    outcome o = gradients_->finish(at);
    if (o.due) commit(at, o, false);
    merge_if(at, o, [&](model_stage& m) { return m.calls_open() > 0; });
    for (auto& m : merges_) m->close(at);
    left_.standing.reset();
    return o;
  }
  /// Gives up what cannot be finished because the group has failed, without a message to anybody. Gradients
  /// that were accumulated and not applied are void; models stay as they are, to be merged in the next group.
  [[nodiscard]] LIMBER_COLD interruption interrupt(training_context& at) {
    interruption left = std::exchange(left_, {});
    if (auto const o = gradients_->committed()) left = {0, o, true};
    i64 const voided = gradients_->interrupt(at);
    for (auto& m : merges_) {
      m->interrupt(at);
      if (uniform_updates() || !m->uniform_updates || m->lockstep) continue;
      // A server counts what it was brought, and a worker that becomes one gives the rest up.
      at.now.samples -= std::exchange(assumed_, 0) - (left.standing ? left.standing->samples : 0);
      left.standing.reset();
    }
    return {voided, left.standing, left.in_step};
  }

  /// Exchanges that were completed since the last whole call: who has more of them is further.
  [[nodiscard]] i64 completed() const {
    i64 sum = completed_;
    for (auto const& m : merges_) sum += m->completed();
    return sum;
  }
  void set_completed(i64 sum) { completed_ += sum - completed(); }
  /// This rank has taken another's state, with what was completed in it.
  void join(i64 completed) {
    set_completed(completed);
    for (auto& m : merges_) m->join();
  }

  /// Serves the other ranks until all of them have finished. Calls rate_of() ahead of every update, for
  /// `at.rate`, and after(outcome) when it is made.
  LIMBER_COLD void serve(training_context& at, before_update rate_of, on_update after) {
    gradients_->serve(at, rate_of, after);
    for (auto& m : merges_) m->serve(at, rate_of, after);
  }

  /// Writes the mean of the ranks' models to the parameters and buffers, where models are merged at all; what
  /// was there is kept until `end_evaluation`.
  LIMBER_COLD void begin_evaluation(training_context& at) {
    if (merges_.empty()) return;
    auto const& values = at.inner.values();
    evaluated_.emplace(copies{at.exec.make(layout_of(values)), at.exec.make(layout_of(at.buffers))});
    at.exec.each(copy{}, out(evaluated_->parameters.parts), in(values));
    if (!at.buffers.empty()) at.exec.each(copy{}, out(evaluated_->buffers.parts), in(at.buffers));
    merges_.back()->average_into(at, values);
    at.exec.synchronize();  // the caller may look from anywhere
  }
  LIMBER_COLD void end_evaluation(training_context& at) {
    if (!evaluated_) return;
    copies const own = *std::exchange(evaluated_, std::nullopt);
    at.exec.each(copy{}, out(at.inner.values()), in(own.parameters.parts));
    if (!at.buffers.empty()) at.exec.each(copy{}, out(at.buffers), in(own.buffers.parts));
  }

  /// Calls f(name, how, view) for every piece of the strategy's state; control comes first.
  LIMBER_COLD void visit(piece_visitor f) {
    auto control = [&](std::string const& name, i64& x) {
      f(name, kept::replicated, detail::number_view(x));
    };
    control("sync/calls", gradients_->calls_open());
    control("sync/assumed", assumed_);
    auto const prefix_of = [](std::size_t k) { return text("sync/merge", k, "/"); };
    for (std::size_t k = 0; k < merges_.size(); ++k)
      control(prefix_of(k) + "calls", merges_[k]->calls_open());
    gradients_->visit([&](std::string const& name, kept how, tensor_view v) { f("sync/" + name, how, v); });
    for (std::size_t k = 0; k < merges_.size(); ++k) {
      auto& m = merges_[k];
      std::string const prefix = prefix_of(k);
      // Groups that merge among themselves hold different models, unless gradients are everybody's.
      kept const how = uniform_updates() || m->uniform_updates ? kept::replicated : kept::per_rank;
      m->visit(how, [&](std::string const& name, kept own, tensor_view v) { f(prefix + name, own, v); });
    }
  }
  /// How parameters and other copies of the model relate between ranks right now.
  [[nodiscard]] kept model_kept() {
    return uniform_updates() || (unified_ && !open()) ? kept::replicated : kept::per_rank;
  }
  /// The same for buffers, which every rank changes while it computes.
  [[nodiscard]] kept buffers_kept() {
    return unified_ && !gradients_->open() && !open() ? kept::replicated : kept::per_rank;
  }
  /// True between merges, when ranks may hold different models.
  [[nodiscard]] bool open() {
    for (auto& m : merges_)
      if (m->calls_open() > 0) return true;
    return false;
  }
  /// True while gradients were accumulated that no update was made of.
  [[nodiscard]] bool accumulating() { return calls_open() > 0; }
  /// Calls that were accumulated since the last update.
  [[nodiscard]] i64 calls_open() { return gradients_->calls_open(); }
  /// Calls f(what, period, plan) for everything that is communicated.
  LIMBER_COLD void communicated(
      function_ref<void(std::string what, i64 period, bucket_plan const&)> f) const {
    if (uniform_updates() && gradients_->communicates())
      f("gradients", gradients_->period(), gradients_->plan());
    for (auto const& m : merges_) f("models", m->period(), m->plan());
  }
  /// Calls f(what, value) for what must be equal on all ranks.
  LIMBER_COLD void describe(function_ref<void(std::string_view what, std::string const& value)> f) const {
    auto const value = [](detail::stage_facts const& facts, i64 period, auto const& stage) {
      fingerprint h;
      stage.mix(h);
      return text(facts.name, period == 1 ? ", every call" : text(", every ", period, " calls"),
                  ", options #", h.value() % 1000000);
    };
    f("the strategy's stage before the rule",
      value(parts_.before.facts(), gradients_->period(), *gradients_));
    for (std::size_t k = 0; k < merges_.size(); ++k)
      f(text("the strategy's stage ", k, " after the rule"),
        value(parts_.after[k].facts(), merges_[k]->period(), *merges_[k]));
  }
  [[nodiscard]] i64 bytes() const {
    i64 sum = gradients_->bytes();
    for (auto const& m : merges_) sum += m->bytes();
    return sum;
  }
  /// Mixes in what must be equal on all ranks.
  LIMBER_COLD void mix(fingerprint& h) const {
    gradients_->mix(h);
    h.mix(static_cast<i64>(merges_.size()));
    for (auto const& m : merges_) m->mix(h);
  }

 private:
  struct copies {
    slab parameters, buffers;
  };

  // Counts an update that was due.
  void commit(training_context& at, outcome& o, bool in_step) {
    if (uniform_updates()) {
      ++completed_;
    } else {  // progress must not depend on one rank's luck: the planned count, corrected at the merge
      o.applied = true;
      o.samples = static_cast<i64>(at.planned) * o.calls;
      assumed_ += o.samples;
    }
    // Where all apply the same update, all weigh the same.
    for (auto& m : merges_) m->count(uniform_updates() ? o.samples : o.own_samples, at.rate);
    left_ = {0, o, in_step};
  }
  void merge_if(training_context& at, outcome& o, function_ref<bool(model_stage&)> is_due) {
    bool done = false;
    for (std::size_t k = merges_.size(); k-- > 0;) {
      model_stage& m = *merges_[k];
      if (done) {
        m.start_round(at);
        continue;
      }
      if (!is_due(m)) continue;
      i64 const applied = m.run(at);
      ++completed_;
      done = true;
      // Counted now, by all: what the calls since the last merge really applied.
      if (!uniform_updates() && m.uniform_updates) o.samples += applied - std::exchange(assumed_, 0);
    }
  }

  exchange parts_;
  limber::detail::owner<gradient_stage> gradients_;
  std::vector<limber::detail::owner<model_stage>> merges_;
  int server_;
  bool uniform_updates_;
  bool lockstep_;
  bool unified_ = true;  // models and buffers are one after each merge
  i64 assumed_ = 0;      // samples that progress was moved by since the last merge
  i64 completed_ = 0;
  interruption left_;
  std::optional<copies> evaluated_;
};

}  // namespace limber::sync

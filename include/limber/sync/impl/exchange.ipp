// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/functors.hpp>
#include <limber/sync/exchange.hpp>
#include <limber/sync/impl/exchange_state.hpp>

#include <string>
#include <utility>

namespace limber::sync {

LIMBER_FN int exchange::server() const noexcept {
  int rank = before.facts().server;
  for (auto const& m : after)
    if (m.facts().server >= 0) rank = m.facts().server;
  return rank;
}

LIMBER_FN i64 exchange::contributors(i64 workers) const noexcept {
  return before.facts().contributors > 0 ? before.facts().contributors : workers;
}

LIMBER_FN bool exchange::counts_epochs() const noexcept {
  bool any = before.facts().counts_epochs;
  for (auto const& m : after) any = any || m.facts().counts_epochs;
  return any;
}

LIMBER_FN std::string exchange::missing(capabilities has) const {
  capabilities lacks = 0, one_of = 0;
  auto const look = [&](detail::stage_facts const& f) {
    lacks |= f.needs & ~has;
    if ((f.needs_one_of & has) == 0) one_of |= f.needs_one_of;
  };
  look(before.facts());
  for (auto const& m : after) look(m.facts());
  std::string out = lacks != 0 ? limber::describe(lacks) : std::string();
  for (capabilities bit = 1; bit <= one_of; bit *= 2)
    if ((one_of & bit) != 0) out += (out.empty() ? "" : " or ") + limber::describe(bit);
  return out;
}

LIMBER_FN exchange_state::exchange_state(exchange parts)
    : parts_(std::move(parts)),
      server_(parts_.server()),
      uniform_updates_(parts_.before.facts().uniform_updates),
      lockstep_(parts_.before.facts().lockstep) {
  for (auto const& m : parts_.after) lockstep_ = lockstep_ && m.facts().lockstep;
}

LIMBER_FN void exchange_state::start(training_context& at) {
  gradients_ = parts_.before.start(at);
  gradients_->uniform_updates = uniform_updates_;
  gradients_->lockstep = parts_.before.facts().lockstep;
  merges_.reserve(parts_.after.size());
  for (auto const& m : parts_.after) {
    merges_.push_back(m.start(at));
    merges_.back()->uniform_updates = m.facts().uniform_updates;
    merges_.back()->lockstep = m.facts().lockstep;
    unified_ = unified_ && merges_.back()->unifies;
  }
}

LIMBER_FN void exchange_state::attach(training_context& at) {
  gradients_->attach(at);
  for (auto& m : merges_) m->attach(at);
}

LIMBER_FN void exchange_state::start_first_round(training_context& at) {
  if (open()) return;
  for (auto& m : merges_) m->start_first_round(at);
}

// Progress must not depend on one rank's luck: the planned count, corrected at the merge.
LIMBER_FN void exchange_state::assume_planned(training_context const& at, outcome& o) {
  o.applied = true;
  o.samples = static_cast<i64>(at.planned) * o.calls;
  assumed_ += o.samples;
}

LIMBER_FN outcome exchange_state::step(training_context& at, i64 n) {
  outcome o = gradients_->step(at, n);
  if (!o.due) return o;
  if (!uniform_updates()) assume_planned(at, o);
  count(o, at.rate);
  commit(o, true);
  merge_if(at, o, [&](model_stage& m) { return m.due(at); });
  left_.standing.reset();
  completed_ = 0;
  return o;
}

LIMBER_FN outcome exchange_state::finish(training_context& at, before_update rate_of, on_update after) {
  gradients_->drain(at, rate_of, after);
  outcome o = gradients_->finish(at);
  if (o.due) {
    if (!uniform_updates()) assume_planned(at, o);
    count(o, at.rate);
    commit(o, false);
  }
  merge_if(at, o, [&](model_stage& m) { return m.calls_open() > 0; });
  for (auto& m : merges_) m->close(at);
  left_.standing.reset();
  return o;
}

LIMBER_FN interruption exchange_state::interrupt(training_context& at) {
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

LIMBER_FN i64 exchange_state::completed() const {
  i64 sum = completed_;
  for (auto const& m : merges_) sum += m->completed();
  return sum;
}

LIMBER_FN void exchange_state::join(i64 completed) {
  set_completed(completed);
  for (auto& m : merges_) m->join();
}

LIMBER_FN void exchange_state::serve(training_context& at, before_update rate_of, on_update after) {
  gradients_->serve(at, rate_of, after);
  for (auto& m : merges_) m->serve(at, rate_of, after);
}

LIMBER_FN void exchange_state::begin_evaluation(training_context& at) {
  if (merges_.empty()) return;
  auto const& values = at.inner.values();
  evaluated_.emplace(copies{at.exec.make(layout_of(values)), at.exec.make(layout_of(at.buffers))});
  at.exec.each(copy{}, out(evaluated_->parameters.parts), in(values));
  if (!at.buffers.empty()) at.exec.each(copy{}, out(evaluated_->buffers.parts), in(at.buffers));
  merges_.back()->average_into(at, values);
  at.exec.synchronize();  // the caller may look from anywhere
}

LIMBER_FN void exchange_state::end_evaluation(training_context& at) {
  if (!evaluated_) return;
  copies const own = *std::exchange(evaluated_, std::nullopt);
  at.exec.each(copy{}, out(at.inner.values()), in(own.parameters.parts));
  if (!at.buffers.empty()) at.exec.each(copy{}, out(at.buffers), in(own.buffers.parts));
}

LIMBER_FN void exchange_state::visit(piece_visitor f) {
  auto control = [&](std::string const& name, i64& x) { f(name, kept::replicated, detail::number_view(x)); };
  control("sync/calls", gradients_->calls_open());
  control("sync/assumed", assumed_);
  int k = 0;
  for (auto& m : merges_) control(text("sync/merge", k++, "/calls"), m->calls_open());
  gradients_->visit([&](std::string const& name, kept how, tensor_view v) { f("sync/" + name, how, v); });
  k = 0;
  for (auto& m : merges_) {
    std::string const prefix = text("sync/merge", k++, "/");
    // Groups that merge among themselves hold different models, unless gradients are everybody's.
    kept const how = uniform_updates() || m->uniform_updates ? kept::replicated : kept::per_rank;
    m->visit(how, [&](std::string const& name, kept own, tensor_view v) { f(prefix + name, own, v); });
  }
}

LIMBER_FN kept exchange_state::model_kept() {
  return uniform_updates() || (unified_ && !open()) ? kept::replicated : kept::per_rank;
}

LIMBER_FN kept exchange_state::buffers_kept() {
  return unified_ && !gradients_->open() && !open() ? kept::replicated : kept::per_rank;
}

LIMBER_FN bool exchange_state::open() {
  for (auto& m : merges_)
    if (m->calls_open() > 0) return true;
  return false;
}

LIMBER_FN void exchange_state::communicated(
    function_ref<void(std::string what, i64 period, bucket_plan const&)> f) const {
  if (uniform_updates()) f("gradients", gradients_->period(), gradients_->plan());
  for (auto const& m : merges_) f("models", m->period(), m->plan());
}

LIMBER_FN void exchange_state::describe(
    function_ref<void(std::string_view what, std::string const& value)> f) const {
  auto const value = [](detail::stage_facts const& facts, i64 period, auto const& stage) {
    fingerprint h;
    stage.mix(h);
    return text(facts.name, period == 1 ? ", every call" : text(", every ", period, " calls"), ", options #",
                h.value() % 1000000);
  };
  f("the strategy's stage before the rule", value(parts_.before.facts(), gradients_->period(), *gradients_));
  for (std::size_t k = 0; k < merges_.size(); ++k)
    f(text("the strategy's stage ", k, " after the rule"),
      value(parts_.after[k].facts(), merges_[k]->period(), *merges_[k]));
}

LIMBER_FN i64 exchange_state::bytes() const {
  i64 sum = gradients_->bytes();
  for (auto const& m : merges_) sum += m->bytes();
  return sum;
}

LIMBER_FN void exchange_state::mix(fingerprint& h) const {
  gradients_->mix(h);
  h.mix(static_cast<i64>(merges_.size()));
  for (auto const& m : merges_) m->mix(h);
}

LIMBER_FN void exchange_state::commit(outcome const& o, bool in_step) {
  if (uniform_updates()) ++completed_;
  left_ = {0, o, in_step};
}

// Where all apply the same update, all weigh the same.
LIMBER_FN void exchange_state::count(outcome const& o, double rate) {
  for (auto& m : merges_) m->count(uniform_updates() ? o.samples : o.own_samples, rate);
}

LIMBER_FN void exchange_state::merge_if(training_context& at, outcome& o,
                                        function_ref<bool(model_stage&)> is_due) {
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

}  // namespace limber::sync

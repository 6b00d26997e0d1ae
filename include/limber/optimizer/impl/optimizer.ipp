// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/optimizer.hpp>
#include <limber/optimizer/impl/core.hpp>

namespace limber {

namespace detail {

void check_arithmetic();

LIMBER_COLD LIMBER_FN optimizer_core::optimizer_core(optimizer_parts parts)
    : tensors_("optimizer", parts.parameters.tensors, parts.parameters.buffers),
      options_(check(std::move(parts.options))),
      rate_(std::move(parts.rate)),
      at_{std::move(parts.exec), parts.comm,         updater(tensors_.values), tensors_.gradients,
          tensors_.buffers,      tensors_.use_order, options_.buckets,         options_.gradient},
      user_(at_.comm),
      strategy_(parts.strategy.parts()) {
  check_arithmetic();
  if (std::string const missing = strategy_.parts().missing(at_.comm.can()); !missing.empty())
    expects(false, "optimizer: this strategy needs ", missing, ", which the communicator has not");
  auto const expect_no_epochs = [&](bool counted, char const* by) {
    expects(options_.epoch_size > 0 || !counted, "optimizer: the ", by,
            " counts epochs, and options.epoch_size, the samples that an epoch has, was not given");
  };
  expect_no_epochs(rate_.counts_epochs(), "schedule");
  expect_no_epochs(strategy_.parts().counts_epochs(), "strategy");
  expect_no_epochs(options_.batch.counts_epochs(), "batch policy");
  std::size_t registered = 0;
  for (auto const& g : parts.parameters.groups)
    for (std::size_t k = 0; k < g.tensors; ++k)
      at_.inner.assign(at_.use_order[registered++], g.rule, g.lr_scale);
  at_.inner.allocate(at_.exec);
  at_.now.epoch_size = options_.epoch_size;
  adopt(plan(at_.comm.size()));
  strategy_.start(at_);
  plan_call();
  rearm();
  (void)checked_rate();
  expect_no_contradiction(options_.batch, rate_, at_.now);
  last_end_ = options_.clock();
}

LIMBER_FN void optimizer_core::begin(i64 n) {
  expect_idle("begin");
  call_.open(n, tensors_);
  handshake();
}
LIMBER_FN void optimizer_core::mark_ready(i64 tensor) {
  call_.mark(tensor, tensors_, options_.clock, [&](i64 n) { strategy_.mark_ready(at_, n, tensor); });
}
LIMBER_FN step_report const& optimizer_core::step() {
  expect_idle("step");
  return run(call_.close());
}
LIMBER_FN step_report const& optimizer_core::step(i64 n) {
  expect_idle("step");
  expects(n >= 0, "step: the number of samples must not be negative, got ", n);
  call_.expect_closed("step", "call step() without an argument");
  return run(n);
}

LIMBER_COLD LIMBER_FN void optimizer_core::finish() {
  expect_idle("finish");
  call_.expect_closed("finish", "step() first");
  // What was loaded may be open: it is closed as it would have been where it was saved.
  if (!strategy_.lockstep() || open().any()) handshake();
  if (!met_) return;
  at_.rate = checked_rate();
  guarded(0, [&] {
    move(strategy_.finish(
        at_, [&] { at_.rate = checked_rate(); }, [&](sync::outcome const& o) { on_update(o); }));
  });
  if (!strategy_.lockstep()) level(at_.comm, at_.now.calls);
  plan_call();
}

LIMBER_COLD LIMBER_FN void optimizer_core::serve(function_ref<void(step_report const&)> each_update) {
  expect_idle("serve");
  expects(at_.comm.rank() == strategy_.server(), "serve: rank ", at_.comm.rank(),
          " is not the server of this strategy, which is ", strategy_.server());
  handshake();
  guarded(0, [&] {
    strategy_.serve(
        at_, [&] { at_.rate = checked_rate(); },
        [&](sync::outcome const& o) {
          on_update(o);
          each_update(report_);
        });
  });
  finish();
}

LIMBER_COLD LIMBER_FN void optimizer_core::resize(communicator comm) {
  expect_idle("resize");
  (void)plan(comm.size());
  finish();
  met_ = false;
  at_.comm = comm;
  user_.move_to(comm);
  adopt(plan(comm.size()));
  plan_call();
  rearm();
}

LIMBER_COLD LIMBER_FN recovery optimizer_core::recover(communicator comm,
                                                       function_ref<void(recovery const&)> also) {
  expect_idle("recover");
  (void)plan(comm.size());
  pending_recovery_.note(strategy_.interrupt(at_));
  call_ = {};
  met_ = false;
  at_.comm = comm;
  user_.move_to(comm);
  return pending_recovery_.guarded(
      at_.exec, strategy_, [&](state_visitor f) { visit(f); },
      [&] {
        recovery r = handshake_with_all();
        sync::interruption const left = pending_recovery_.agree(comm, r.giver);
        if (left.standing && left.in_step) ++at_.now.calls;
        if (left.standing) move(*left.standing);
        r.voided = left.voided;
        if (strategy_.lockstep() && strategy_.open()) finish();
        also(r);
        return r;
      });
}

LIMBER_FN void optimizer_core::handshake() {
  expect_idle("handshake");
  if (!met_)
    (void)pending_recovery_.guarded(
        at_.exec, strategy_, [&](state_visitor f) { visit(f); }, [&] { return handshake_with_all(); });
}

LIMBER_COLD LIMBER_FN recovery optimizer_core::handshake_with_all() {
  i64 const position = pending_recovery_.position(at_.now.calls, strategy_.completed());
  limber::handshake h(at_.comm,
                      {fingerprint_of_run(), [&] { return description_of_run(); }, user_.among_all()},
                      position, strategy_.lockstep(), strategy_.server());
  at_.id = h.id();
  if (h.joins())
    pending_recovery_.give_up(
        at_.exec, strategy_, [&](state_visitor f) { visit(f); }, position);
  // Progress first: a policy may read it, and all must plan from the same.
  h.give(at_.exec, progress_piece(at_.now));
  at_.now.epoch_size = options_.epoch_size;
  adopt(plan(at_.comm.size()));
  h.compare("the planned batch", static_cast<double>(planning_.total));
  if (at_.now.planned_batch() != planned_batch()) rearm();
  at_.inner.seed(at_.exec);
  strategy_.attach(at_);
  visit([&](state_piece const& piece) {
    if (piece.name != "progress") h.give(at_.exec, piece);
  });
  if (h.joins()) strategy_.join(completed_of(h.position()));
  strategy_.start_first_round(at_);
  h.compare("the rate", rate_(at_.now));
  times_.restart();
  considered_ = at_.now;
  plan_call();
  met_ = true;
  return {h.giver(), 0, h.joined()};
}

LIMBER_COLD LIMBER_FN void optimizer_core::begin_evaluation() {
  expect_idle("evaluate");
  call_.expect_closed("evaluate", "step() first");
  handshake();
  strategy_.begin_evaluation(at_);
  evaluating_ = true;
}
LIMBER_COLD LIMBER_FN void optimizer_core::end_evaluation() {
  evaluating_ = false;
  strategy_.end_evaluation(at_);
}

// Progress, the strategy's control and rounds, the model, buffers, rule state. Which pieces there are, and of
// what kind, may depend on those before.
LIMBER_COLD LIMBER_FN void optimizer_core::visit(state_visitor f) {
  f(progress_piece(at_.now));
  strategy_.visit([&](std::string const& name, kept how, tensor_view v) { f(state_piece{name, how, v}); });
  // All start from one model, also where they never hold the same one again.
  bool const untouched = at_.now.calls == 0 && !strategy_.open();
  kept const model = untouched ? kept::replicated : strategy_.model_kept();
  for (auto const& v : at_.inner.values()) f(state_piece{text("parameter/", v.name), model, v});
  for (auto const& v : at_.buffers) f(state_piece{text("buffer/", v.name), strategy_.buffers_kept(), v});
  at_.inner.visit("", [&](std::string const& name, tensor_view v, bool weight) {
    f(state_piece{name, weight ? model : strategy_.uniform_updates() ? kept::replicated : kept::per_rank, v});
  });
}

LIMBER_COLD LIMBER_FN batch_plan optimizer_core::plan(batch_facts const& facts) const {
  return ask(
      options_.batch, facts,
      {strategy_.gradient_period(), strategy_.uniform_updates(), strategy_.lockstep(), strategy_.server()},
      planning_);
}
LIMBER_FN i64 optimizer_core::workers() const noexcept {
  return static_cast<i64>(planning_.share.size()) - (strategy_.server() >= 0 ? 1 : 0);
}
LIMBER_FN double optimizer_core::planned_batch() const {
  if (at_.shards > 0) return static_cast<double>(planning_.total);
  i64 const n = workers();
  return static_cast<double>(planning_.total * strategy_.gradient_period() * strategy_.contributors(n)) /
         static_cast<double>(n);
}

// Asks a policy that wants it once more, with what the workers took for their shares since.
LIMBER_FN void optimizer_core::replan(i64 n) {
  if (!options_.batch.asks_again()) return;
  times_.count(report_.host_seconds, n);
  if (!options_.batch.due(std::exchange(considered_, at_.now), at_.now)) return;
  adopt(plan(batch_facts{at_.comm.size(), at_.now, times_.gather(at_.comm), &planning_}));
  if (at_.now.planned_batch() != planned_batch()) rearm();
}

LIMBER_COLD LIMBER_FN void optimizer_core::adopt(batch_plan p) {
  planning_ = std::move(p);
  at_.planned = static_cast<double>(planning_.total);
  at_.planned_share = at_.planned / static_cast<double>(workers());
  at_.shards = planning_.shards;
  at_.calls_per_update = planning_.calls_per_update;
}

// With logical shards: the owners of the coming call's. Shard q is that of call q / world, rank q % world.
LIMBER_FN void optimizer_core::plan_call() {
  if (planning_.shards == 0) return;
  auto const world = static_cast<i64>(planning_.share.size());
  i64 const first = strategy_.calls_open() * world;
  for (i64 r = 0; r < world; ++r)
    planning_.share[static_cast<std::size_t>(r)] =
        first + r < planning_.shards ? planning_.total / planning_.shards : 0;
}

LIMBER_COLD LIMBER_FN void optimizer_core::rearm() {
  at_.now.batch = ramp_to(at_.now, planned_batch(), options_.ramp);
}

LIMBER_FN double optimizer_core::checked_rate() {
  double const r = rate_(at_.now);
  expects(r >= 0 && math::finite(r), "schedule: the rate must be a number of at least 0, got ", r,
          " at step ", at_.now.steps,
          options_.epoch_size == 0 && r != r
              ? "; if the schedule counts epochs, give options.epoch_size, the samples that an epoch has"
              : "");
  at_.now.gain = rate_.gain(at_.now);
  return r;
}

LIMBER_FN step_report const& optimizer_core::run(i64 n) {
  expects(strategy_.server() < 0 || at_.comm.rank() != strategy_.server(), "step: rank ", strategy_.server(),
          " is the server of this strategy; call serve()");
  handshake();
  at_.rate = checked_rate();
  double const begin = options_.clock();
  bool const lockstep = strategy_.lockstep();
  if (lockstep) ++at_.now.calls;
  sync::outcome o;
  guarded(lockstep ? 1 : 0, [&] { o = strategy_.step(at_, n); });
  if (!lockstep && o.due) ++at_.now.calls;
  move(o);
  describe(o, at_.rate);
  double const end = options_.clock();
  report_.marking_seconds = call_.marking_seconds();
  report_.host_seconds = begin - std::exchange(last_end_, end) - report_.marking_seconds;
  report_.exchange_seconds = end - begin;
  replan(n);
  plan_call();
  if (report_.skipped_in_a_row > options_.max_skipped)
    throw error({"optimizer", "step", 0, report_.culprit_rank, std::string(report_.culprit),
                 text("gradients were not finite in ", report_.skipped_in_a_row,
                      " updates in a row; parameters and state are those of the last good one",
                      report_.overflowed && options_.buckets.wire
                          ? text("; each rank's gradient was finite, but their sum overflows ",
                                 name_of(*options_.buckets.wire), ", the type of options.buckets.wire")
                          : std::string())});
  return report_;
}

// Where an engine fails, what can be kept is, and the rest is as before this call.
LIMBER_FN void optimizer_core::guarded(i64 counted, function_ref<void()> f) {
  try {
    f();
  } catch (error const&) {
    at_.now.calls -= counted;
    pending_recovery_.note(strategy_.interrupt(at_), counted);
    throw;
  } catch (...) {
    at_.now.calls -= counted;
    throw;
  }
}

// An update that was made outside of step().
LIMBER_FN void optimizer_core::on_update(sync::outcome const& o) {
  ++at_.now.calls;
  move(o);
  describe(o, at_.rate);
}

// The only place that moves steps and samples.
LIMBER_FN void optimizer_core::move(sync::outcome const& o) {
  sync::count_outcome(at_.now, o, strategy_.uniform_updates());
  if (o.due) report_.skipped_in_a_row = o.skipped ? report_.skipped_in_a_row + 1 : 0;
}

LIMBER_FN void optimizer_core::describe(sync::outcome const& o, double rate) {
  report_.rate = rate;
  report_.applied = o.applied;
  report_.samples = o.samples;
  report_.skipped = o.skipped;
  report_.culprit = o.culprit >= 0 ? std::string_view(tensors_.names[static_cast<std::size_t>(o.culprit)])
                                   : std::string_view();
  report_.culprit_rank = o.culprit_rank;
  report_.overflowed = o.overflowed;
}

LIMBER_FN void optimizer_core::expect_idle(std::string_view call) const {
  expects(!evaluating_, call, ": called inside evaluate(); training goes on when that has returned");
}

// Results are promised to the bit, subnormal numbers included. A program that is linked with -Ofast or
// -ffast-math switches them off for every thread that it starts.
LIMBER_COLD LIMBER_FN void check_arithmetic() {
  double volatile tiny = 0x1p-1070;
  float volatile tiny_float = 0x1p-140f;
  expects(
      tiny * 1.0 != 0 && tiny_float * 1.0f != 0.0f && tiny + tiny != 0,
      "optimizer: this program rounds subnormal numbers to zero, as one does that was linked with -Ofast or "
      "-ffast-math (or has set flush-to-zero): ranks would not agree on bits; link without these flags");
}

LIMBER_COLD LIMBER_FN optimizer_core* make_optimizer_core(optimizer_parts parts) {
  return new optimizer_core(std::move(parts));
}

}  // namespace detail

LIMBER_COLD LIMBER_FN optimizer::~optimizer() { delete core_; }

LIMBER_FN detail::optimizer_core& optimizer::core() const {
  expects(core_ != nullptr, "optimizer: it was moved from; use the one that it was moved to");
  return *core_;
}

LIMBER_FN optimizer::evaluation::evaluation(optimizer& opt) : core_(opt.core()) { core_.begin_evaluation(); }
LIMBER_FN optimizer::evaluation::~evaluation() {
  try {
    core_.end_evaluation();
  } catch (
      ...) {  // a device has failed: the function that was evaluated has reported it, or the next call does
  }
}

LIMBER_FN void optimizer::begin(i64 n) { core().begin(n); }
LIMBER_FN void optimizer::mark_ready(std::string_view name) {
  core().mark_ready(core().tensors().find("mark_ready", name));
}
LIMBER_FN void optimizer::mark_ready(i64 index) {
  core().mark_ready(core().tensors().registered("mark_ready", index));
}
LIMBER_FN step_report const& optimizer::step() { return core().step(); }
LIMBER_FN step_report const& optimizer::step(i64 n) { return core().step(n); }
LIMBER_FN void optimizer::finish() { core().finish(); }
LIMBER_FN void optimizer::serve(function_ref<void(step_report const&)> each_update) {
  core().serve(each_update);
}
LIMBER_FN void optimizer::resize(communicator comm) { core().resize(comm); }
LIMBER_FN recovery optimizer::recover(communicator comm, function_ref<void(recovery const&)> also) {
  return core().recover(comm, also);
}
LIMBER_FN void optimizer::forget() { core().forget(); }
LIMBER_FN sync::open_work optimizer::open() { return core().open(); }
LIMBER_FN void optimizer::handshake() { core().handshake(); }
LIMBER_FN void optimizer::freeze(std::string_view name, bool frozen) {
  core().context().inner.freeze(core().tensors().find("freeze", name), frozen);
}
LIMBER_FN void optimizer::visit(function_ref<void(state_piece const&)> f) { core().visit(f); }
LIMBER_FN double optimizer::rate() const { return core().rate(); }
LIMBER_FN progress const& optimizer::now() const { return core().context().now; }
LIMBER_FN step_report const& optimizer::last() const { return core().last(); }
LIMBER_FN batch_plan const& optimizer::planned() const { return core().planned(); }
LIMBER_FN double optimizer::planned_batch() const { return core().planned_batch(); }
LIMBER_FN bool optimizer::lockstep() const { return core().strategy().lockstep(); }
LIMBER_FN updater& optimizer::rules() { return core().context().inner; }
LIMBER_FN std::string optimizer::explain(amount horizon) { return core().explain(horizon); }

}  // namespace limber

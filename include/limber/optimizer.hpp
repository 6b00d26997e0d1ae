// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The one object that a trainer steps.

#include <limber/batch/plan.hpp>
#include <limber/core/progress.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/host.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/optimizer/explain.hpp>
#include <limber/optimizer/groups.hpp>
#include <limber/optimizer/handover.hpp>
#include <limber/optimizer/open_call.hpp>
#include <limber/optimizer/options.hpp>
#include <limber/optimizer/pieces.hpp>
#include <limber/optimizer/planning.hpp>
#include <limber/optimizer/recovery.hpp>
#include <limber/optimizer/registry.hpp>
#include <limber/optimizer/report.hpp>
#include <limber/schedule/constant.hpp>
#include <limber/schedule/gain.hpp>
#include <limber/schedule/schedule.hpp>
#include <limber/sync/exchange.hpp>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace limber {

namespace detail {

// A plain number is a constant schedule.
template <class L>
using schedule_type = decltype(as_schedule(std::declval<L const&>()));

}  // namespace detail

/// Update rule, schedule, batch policy and synchronisation strategy over the host's tensors.
///
///     limber::optimizer opt{parameters, rule, schedule, strategy, comm, options};
///     for (auto batch : loader) { backward(model, batch); opt.step(batch.size()); }
///     opt.finish();
///
/// Parameters   a std::vector<tensor>, a std::vector<group<R>>, or groups(…) of different rules.
/// Schedule     any schedule, a lambda, or a number.
/// Collectives  constructors communicate nothing; every rank of `comm` must call step, finish, resize
///              and evaluate equally often.
/// Bits         same inputs, plan and world: same bits on every run and rank.
/// Memory       the tensors and `comm` are the caller's and must outlive the optimizer; everything else
///              is allocated at construction, nothing in a step.
/// Errors       std::invalid_argument for misuse, before anything is exchanged; limber::error when a
///              peer or an engine fails.
template <class Updater, sync::strategy Strategy, collective C, class Schedule, executor E>
class optimizer {
  using parts_type = decltype(std::declval<Strategy const&>().parts());
  using site_type = sync::site<C, E, Updater>;
  using state_type = typename parts_type::template state<site_type>;

 public:
  template <class... R, class L>
  optimizer(parameter_groups<R...> parameters, L const& rate, Strategy strategy, C& comm, options o = {},
            E e = E{})
      : tensors_(parameters),
        options_(check(std::move(o))),
        rate_(detail::as_schedule(rate)),
        site_(std::make_unique<site_type>(site(parameters, comm, std::move(e)))),
        parts_(strategy.parts()),
        sync_(parts_, planned_site(comm.size())) {
    rearm();
    checked_rate();
    expect_no_contradiction(options_.batch, rate_, site_->now);
    mark_ = options_.clock();
  }

  template <update_rule R, class L>
  optimizer(std::vector<group<R>> g, L const& rate, Strategy strategy, C& comm, options o = {}, E e = E{})
      : optimizer(parameter_groups<R>{{std::move(g)}, {}}, rate, strategy, comm, std::move(o), std::move(e)) {
  }

  template <update_rule R, class L>
  optimizer(std::vector<tensor> p, R const& rule, L const& rate, Strategy strategy, C& comm, options o = {},
            E e = E{})
      : optimizer(groups(group<R>{std::move(p), rule}), rate, strategy, comm, std::move(o), std::move(e)) {}

  optimizer(optimizer&&) = default;
  optimizer& operator=(optimizer&&) = delete;  // it would assign through references to the collective

  /// Declares the samples of the coming backward; then step() takes no argument. Meets the others, as step().
  void begin(i64 n) {
    call_.open(n, tensors_);
    meet();
  }
  /// Between begin() and step(): backward has finished this gradient; buckets that are complete cross while
  /// it goes on. In any order, on any rank, or not at all. By name, or by place as they were registered.
  void mark_ready(std::string_view name) { mark(tensors_.find("mark_ready", name)); }
  void mark_ready(i64 index) { mark(tensors_.registered("mark_ready", index)); }
  step_report const& step() { return run(call_.close()); }

  /// Folds in the gradient of n samples, 0 included; exchanges, updates and merges what is due. The
  /// gradients are zero afterwards.
  step_report const& step(i64 n) {
    expects(n >= 0, "step: the number of samples must not be negative, got ", n);
    call_.expect_closed("step", "call step() without an argument");
    return run(n);
  }

  /// Merges what is open and lands what is in flight. Training may go on afterwards.
  void finish() {
    call_.expect_closed("finish", "step() first");
    if constexpr (!state_type::paced) meet();
    if (!met_) return;
    move(guarded(
        [&] { return sync_.finish(*site_, rate_of_update(), [&](sync::outcome const& o) { told(o); }); }));
    if constexpr (!state_type::paced) level(*site_->comm, site_->now.calls);
  }

  /// Serves the workers until all of them have called finish(); for the rank that the strategy names as its
  /// server, instead of step(). Calls each_update(report) after every update: the parameters hold the model.
  template <class F = detail::untold>
  void serve(F&& each_update = {}) {
    expects(site_->comm->rank() == parts_.server(), "serve: rank ", site_->comm->rank(),
            " is not the server of this strategy, which is ", parts_.server());
    meet();
    guarded([&] {
      sync_.serve(*site_, rate_of_update(), [&](sync::outcome const& o) {
        told(o);
        each_update(report_);
      });
    });
    finish();
  }
  /// Goes on with the workers of `comm`: closes the round on the old set, plans the new batch, re-arms
  /// the ramp. The next step() meets the new set; workers that leave call finish() instead.
  /// @throws std::invalid_argument if the policy has no plan for so many workers; nothing happened then
  void resize(C& comm) {
    (void)plan(comm.size());
    finish();
    met_ = false;
    site_->comm = &comm;
    adopt(plan(comm.size()));
    rearm();
  }

  /// Goes on with the workers of `comm` after the old set has failed; nothing is sent there. All call it,
  /// newcomers too: an update whose buckets have all arrived anywhere stands and is handed to the others, any
  /// other is void; models that were apart are merged, newcomers at weight 0. The old collective must live
  /// until it returns. If it fails as well, call it again with the next set.
  /// @throws std::invalid_argument if the policy has no plan for so many workers; nothing happened then
  /// @param also  also(recovery) hands over what else belongs to it: who joins gets all of that, or keeps its
  /// own
  template <class Also = detail::nothing_else>
  recovery recover(C& comm, Also&& also = {}) {
    (void)plan(comm.size());
    cut_off_.note(sync_.interrupt(*site_));
    call_ = {};
    met_ = false;
    site_->comm = &comm;
    return cut_off_.whole(*site_, sync_, [&] {
      recovery r = meet_all();
      sync::interruption const left = cut_off_.agree(comm, r.giver);
      if (left.standing && left.in_step) ++site_->now.calls;
      if (left.standing) move(*left.standing);
      r.voided = left.voided;
      if constexpr (state_type::paced)
        if (sync_.open()) finish();
      also(std::as_const(r));
      return r;
    });
  }

  /// This rank's state is worth nothing: at the next handshake it takes everything from the others, who have
  /// given it up in the meantime.
  void forget() { cut_off_.tear(); }
  /// What the calls so far have not yet brought into the parameters of all.
  [[nodiscard]] sync::open_work open() { return {sync_.gathering(), sync_.open()}; }
  /// Agrees with all ranks of the collective, as the next step() would: plans are compared, the rank
  /// that is furthest gives parameters, state and progress to those behind.
  /// @throws limber::error on every rank if they do not train the same thing
  void meet() {
    if (!met_) cut_off_.whole(*site_, sync_, [&] { return meet_all(); });
  }

  /// Calls f() with the averaged model in the parameters; training is untouched. A collective call.
  template <class F>
  decltype(auto) evaluate(F&& f) {
    call_.expect_closed("evaluate", "step() first");
    meet();
    return sync_.evaluate(*site_, std::forward<F>(f));
  }

  /// Leaves the tensor out of norms and updates from now on (`frozen` true), or takes it back in; its
  /// state is kept. All ranks must call it alike; joiners are told by the handshake.
  void freeze(std::string_view name, bool frozen = true) {
    site_->inner.freeze(tensors_.find("freeze", name), frozen);
  }

  /// Calls f(state_piece) for every piece of state: what hand-over, merging and checkpoints need.
  template <class F>
  void visit(F const& f) {
    detail::visit_pieces(*site_, sync_, f);
  }
  [[nodiscard]] double rate() const { return rate_(site_->now); }
  [[nodiscard]] progress const& now() const noexcept { return site_->now; }
  [[nodiscard]] step_report const& last() const noexcept { return report_; }
  /// Planned samples of a call of step(), in all and of each rank (of an update, with logical shards).
  [[nodiscard]] batch_plan const& planned() const noexcept { return planning_; }
  /// Planned samples of an update, gradient accumulation included: what the rate is scaled by.
  [[nodiscard]] double planned_batch() const noexcept {
    if (site_->shards > 0) return static_cast<double>(planning_.total);
    i64 const n = workers();
    return static_cast<double>(planning_.total * calls_per_update() * parts_.contributors(n)) /
           static_cast<double>(n);
  }
  static constexpr bool paced = state_type::paced;  ///< ranks call step() equally often
  [[nodiscard]] Updater& rules() noexcept { return site_->inner; }

  /// What will happen, before an hour of computing is spent: buckets, bytes, memory, passes, and the
  /// rate over `horizon`.
  [[nodiscard]] std::string explain(amount horizon = epochs(1)) {
    return limber::explain(
        detail::plan_of(*site_, sync_), planned_batch(),
        planning_.share[static_cast<std::size_t>(site_->comm->rank())] * calls_per_update(), horizon, rate_);
  }

 private:
  template <class... R>
  [[nodiscard]] site_type site(parameter_groups<R...> const& parameters, C& comm, E e) {
    site_type at{std::move(e),
                 &comm,
                 Updater(tensors_.values),
                 tensors_.gradients,
                 tensors_.buffers,
                 tensors_.use_order,
                 options_.buckets,
                 options_.gradient};
    detail::assign_rules(at.inner, parameters, tensors_.use_order);
    at.inner.allocate(at.exec);
    return at;
  }

  // The site with its first plan, from which the strategy allocates.
  [[nodiscard]] site_type& planned_site(int world) {
    site_->now.epoch_size = options_.epoch_size;
    adopt(plan(world));
    return *site_;
  }

  recovery meet_all() {
    site_type& at = *site_;
    i64 const position = cut_off_.position(at.now.calls, sync_.landed());
    handover<C> h(*at.comm, detail::fingerprint_of(at, sync_, options_), position, state_type::paced,
                  parts_.server());
    if (h.joins()) cut_off_.give_up(at, sync_, position);
    // Progress first: a policy may read it, and all must plan from the same.
    h.give(at.exec, progress_piece(site_->now));
    at.now.epoch_size = options_.epoch_size;
    adopt(plan(at.comm->size()));
    h.compare("the planned batch", static_cast<double>(planning_.total));
    if (at.now.planned_batch() != planned_batch()) rearm();
    at.inner.seed(at.exec);
    sync_.attach(at);
    visit([&](state_piece const& piece) {
      if (piece.name != "progress") h.give(at.exec, piece);
    });
    if (h.joins()) sync_.join(landed_of(h.position()));
    sync_.pin(at);
    h.compare("the rate", rate());
    times_.restart();
    considered_ = at.now;
    met_ = true;
    return {h.giver(), 0, h.joined()};
  }

  // What the policy says for so many workers; changes nothing.
  [[nodiscard]] batch_plan plan(int world) const { return plan(batch_facts{world, site_->now}); }
  [[nodiscard]] batch_plan plan(batch_facts const& facts) const {
    return ask(options_.batch, facts,
               {calls_per_update(), state_type::agreed, state_type::paced, parts_.server()}, planning_);
  }
  [[nodiscard]] i64 calls_per_update() const { return sync::period_of(parts_.before.when); }
  [[nodiscard]] i64 workers() const noexcept {
    return static_cast<i64>(planning_.share.size()) - (parts_.server() >= 0 ? 1 : 0);
  }

  // Asks a policy that wants it once more, with what the workers took for their shares since.
  void replan(i64 n) {
    if (!options_.batch.asks_again()) return;
    times_.count(report_.host_seconds, n);
    if (!options_.batch.due(std::exchange(considered_, site_->now), site_->now)) return;
    batch_facts const facts{site_->comm->size(), site_->now, times_.gather(*site_->comm), &planning_};
    adopt(plan(facts));
    if (site_->now.planned_batch() != planned_batch()) rearm();
  }

  void adopt(batch_plan p) {
    planning_ = std::move(p);
    site_->planned = static_cast<double>(planning_.total);
    site_->planned_share = site_->planned / static_cast<double>(workers());
    site_->shards = planning_.shards;
    site_->calls_per_update = planning_.calls_per_update;
  }

  void rearm() { site_->now.batch = ramp_to(site_->now, planned_batch(), options_.ramp); }
  void mark(i64 tensor) {
    call_.mark(tensor, tensors_, options_.clock, [&](i64 n) { sync_.mark_ready(*site_, n, tensor); });
  }

  double checked_rate() {
    double const r = rate_(site_->now);
    expects(r >= 0 && math::finite(r), "schedule: the rate must be a number of at least 0, got ", r,
            " at step ", site_->now.steps);
    site_->now.gain = gain_of(rate_, site_->now);
    return r;
  }

  step_report const& run(i64 n) {
    expects(parts_.server() < 0 || site_->comm->rank() != parts_.server(), "step: rank ", parts_.server(),
            " is the server of this strategy; call serve()");
    meet();
    site_type& at = *site_;
    at.rate = checked_rate();
    double const begin = options_.clock();
    if (state_type::paced) ++at.now.calls;
    sync::outcome const o = guarded([&] { return sync_.step(at, n); }, state_type::paced ? 1 : 0);
    if (!state_type::paced && o.due) ++at.now.calls;
    move(o);
    detail::describe(report_, o, at.rate, tensors_);
    double const end = options_.clock();
    report_.marking_seconds = call_.marking_seconds();
    report_.host_seconds = begin - std::exchange(mark_, end) - report_.marking_seconds;
    report_.exchange_seconds = end - begin;
    replan(n);
    detail::expect_progress(report_, options_.max_skipped);
    return report_;
  }

  // Where an engine fails, what can stand stands, and the rest is as before this call.
  template <class F>
  decltype(auto) guarded(F const& f, i64 counted = 0) {
    try {
      return f();
    } catch (error const&) {
      site_->now.calls -= counted;
      cut_off_.note(sync_.interrupt(*site_), counted);
      throw;
    } catch (...) {
      site_->now.calls -= counted;
      throw;
    }
  }

  // Updates that are made outside of step().
  [[nodiscard]] auto rate_of_update() {
    return [this] { site_->rate = checked_rate(); };
  }
  void told(sync::outcome const& o) {
    ++site_->now.calls;
    move(o);
    detail::describe(report_, o, site_->rate, tensors_);
  }

  // The only place that moves steps and samples.
  void move(sync::outcome const& o) {
    sync::count_outcome(site_->now, o, state_type::agreed);
    if (o.due) report_.skipped_in_a_row = o.skipped ? report_.skipped_in_a_row + 1 : 0;
  }

  registry tensors_;
  options options_;
  Schedule rate_;
  std::unique_ptr<site_type> site_;
  batch_plan planning_;
  parts_type parts_;
  state_type sync_;
  step_report report_;
  open_call call_;
  detail::loose_ends cut_off_;
  bool met_ = false;
  double mark_ = 0;
  compute_time times_;
  progress considered_{};  // when the policy was last thought of
};

template <class... R, class L, class S, class C, executor E = host>
optimizer(parameter_groups<R...>, L, S, C&, options = {}, E = E{})
    -> optimizer<updater_of_groups<R...>, S, C, detail::schedule_type<L>, E>;
template <class R, class L, class S, class C, executor E = host>
optimizer(std::vector<group<R>>, L, S, C&, options = {}, E = E{})
    -> optimizer<updater<R>, S, C, detail::schedule_type<L>, E>;
template <class R, class L, class S, class C, executor E = host>
optimizer(std::vector<tensor>, R, L, S, C&, options = {}, E = E{})
    -> optimizer<updater<R>, S, C, detail::schedule_type<L>, E>;

}  // namespace limber

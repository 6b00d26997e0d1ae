// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The one object that a trainer steps.

#include <limber/batch/plan.hpp>
#include <limber/comm/any_communicator.hpp>
#include <limber/core/function_ref.hpp>
#include <limber/core/progress.hpp>
#include <limber/core/state_piece.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/optimizer/arguments.hpp>
#include <limber/optimizer/groups.hpp>
#include <limber/optimizer/options.hpp>
#include <limber/optimizer/recovery.hpp>
#include <limber/optimizer/report.hpp>
#include <limber/schedule/any_schedule.hpp>
#include <limber/sync/any_strategy.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber {

namespace detail {

class optimizer_core;

/// Everything that an optimizer is made of, whatever its types were.
struct optimizer_parts {
  erased_groups parameters;
  any_schedule rate;
  sync::any_strategy strategy;
  communicator comm;
  limber::options options;
  any_executor exec;
};

[[nodiscard]] optimizer_core* make_optimizer_core(optimizer_parts parts);

/// Of arguments that were checked.
template <class L, class S, class C, class E>
[[nodiscard]] optimizer_core* make_optimizer_core(erased_groups parameters, L const& rate, S const& strategy,
                                                  C& comm, limber::options o, E e) {
  return make_optimizer_core({std::move(parameters), any_schedule(std::decay_t<L const&>(rate)),
                              sync::any_strategy(strategy), communicator(comm), std::move(o),
                              executor_for(std::move(e))});
}

}  // namespace detail

/// Update rule, schedule, batch policy and synchronisation strategy over the host's tensors.
///
///     limber::optimizer opt{parameters, rule, schedule, strategy, comm, options};
///     for (auto batch : loader) { backward(model, batch); opt.step(batch.size()); }
///     opt.finish();
///
/// One type, whatever it is made of: a class can have it as a member, a vector or an optional can hold it, it
/// can be moved, assigned and returned. One that was moved from can be destroyed and assigned to; everything
/// else is an error.
///
/// Parameters   a std::vector<tensor>, a std::vector<parameter_group<R>>, or groups(…) of different rules.
/// Schedule     any schedule, a lambda, or a number.
/// Collectives  constructors communicate nothing; every rank of `comm` must call step, finish, resize
///              and evaluate equally often.
/// Bits         same inputs, plan and world: same bits on every run and rank.
/// Memory       the tensors and `comm` are the caller's and must outlive the optimizer, at the same address;
///              everything else is allocated at construction, nothing in a step.
/// Errors       std::invalid_argument for misuse, before anything is exchanged; limber::error when a
///              peer or an engine fails.
class optimizer {
 public:
  /// @param options  see limber::options
  /// @param executor  works on the tensors' memory: `host{}`, serial, or `host{threads}`, or another executor
  template <class R, class L, class S, class C, class E = host>
  optimizer(std::vector<tensor> parameters, R const& rule, L const& rate, S const& strategy, C&& comm,
            limber::options o = {}, E e = E{}) {
    if constexpr (detail::expect_rule<R, L>())
      if constexpr (detail::expect_parts<L, S, C, E>())
        core_ = detail::make_optimizer_core(detail::one_group<E>(std::move(parameters), rule), rate, strategy,
                                            comm, std::move(o), std::move(e));
  }
  template <detail::groups_of_parameters P, class L, class S, class C, class E = host>
  optimizer(P const& parameters, L const& rate, S const& strategy, C&& comm, limber::options o = {},
            E e = E{}) {
    if constexpr (detail::expect_groups(static_cast<P const*>(nullptr)))
      if constexpr (detail::expect_parts<L, S, C, E>())
        core_ = detail::make_optimizer_core(detail::erase_groups<E>(parameters), rate, strategy, comm,
                                            std::move(o), std::move(e));
  }

  // An argument was left out, is of another kind, or is in another's place: these do not compile, and say so.
  template <class R, class L, class S>
  optimizer(std::vector<tensor> const&, R const&, L const&, S const&, limber::options = {}) {
    detail::refuse_missing<true, R, L, S>();
  }
  template <detail::groups_of_parameters P, class L, class S>
  optimizer(P const&, L const&, S const&, limber::options = {}) {
    detail::refuse_missing<false, P, L, S>();
  }
  template <class P, class R, class L, class S, class C, class O = limber::options, class E = host>
    requires(!detail::is_taken<P, C, O>)
  optimizer(P const&, R const&, L const&, S const&, C const&, O const& = {}, E const& = E()) {
    detail::refuse_parameters<P, R>();
  }

  optimizer(optimizer&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  optimizer& operator=(optimizer&& other) noexcept {
    optimizer taken(std::move(other));
    std::swap(core_, taken.core_);
    return *this;
  }
  ~optimizer();

  /// Declares the samples of the coming backward; then step() takes no argument. Includes the handshake, as
  /// step().
  void begin(i64 n);
  /// Between begin() and step(): backward has finished this gradient; buckets that are complete are sent
  /// while it goes on. In any order, on any rank, or not at all. By name, or by place as they were
  /// registered.
  void mark_ready(std::string_view name);
  void mark_ready(i64 index);
  step_report const& step();
  /// Accumulates the gradient of n samples, 0 included; exchanges, updates and merges what is due. The
  /// gradients are zero afterwards.
  step_report const& step(i64 n);

  /// Merges what is open and applies what is in flight. Training may go on afterwards.
  void finish();

  /// Serves the workers until all of them have called finish(); for the rank that the strategy names as its
  /// server, instead of step(). Calls each_update(report) after every update: the parameters hold the model.
  void serve(function_ref<void(step_report const&)> each_update = detail::no_op{});

  /// Goes on with the workers of `comm`: closes the round on the old set, plans the new batch, re-arms
  /// the ramp. The next step() is a handshake with the new set; workers that leave call finish() instead.
  /// @throws std::invalid_argument if the policy has no plan for so many workers; nothing happened then
  template <collective C>
  void resize(C& comm) {
    resize(communicator(comm));
  }
  void resize(communicator comm);

  /// Goes on with the workers of `comm` after the old set has failed; nothing is sent there. All call it,
  /// newcomers too: an update whose buckets have all arrived anywhere is kept and copied to the others, any
  /// other is void; models that were apart are merged, newcomers at weight 0. The old collective must live
  /// until it returns. If it fails as well, call it again with the next set.
  /// @throws std::invalid_argument if the policy has no plan for so many workers; nothing happened then
  /// @param also  also(recovery) copies what else belongs to it: who joins gets all of that, or keeps its own
  template <collective C>
  recovery recover(C& comm, function_ref<void(recovery const&)> also = detail::no_op{}) {
    return recover(communicator(comm), also);
  }
  recovery recover(communicator comm, function_ref<void(recovery const&)> also = detail::no_op{});

  /// This rank's state is worth nothing: at the next handshake it takes everything from the others, who have
  /// given it up in the meantime.
  void forget();
  /// What the calls so far have not yet brought into the parameters of all.
  [[nodiscard]] sync::open_work open();
  /// A collective call of all ranks, as the next step() would make it: plans are compared, and the rank
  /// that is furthest gives parameters, state and progress to those behind.
  /// @throws limber::error on every rank if they do not train the same thing
  void handshake();

  /// Calls f() with the averaged model in the parameters; training is untouched. A collective call.
  template <class F>
  decltype(auto) evaluate(F&& f) {
    evaluation const guard(*this);
    return std::forward<F>(f)();
  }

  /// Leaves the tensor out of norms and updates from now on (`frozen` true), or takes it back in; its
  /// state is kept. All ranks must call it alike; joiners get it with the handshake.
  void freeze(std::string_view name, bool frozen = true);

  /// Calls f(state_piece) for every piece of state: what hand-over, merging and checkpoints need.
  void visit(function_ref<void(state_piece const&)> f);

  [[nodiscard]] double rate() const;
  [[nodiscard]] progress const& now() const;
  [[nodiscard]] step_report const& last() const;
  /// Planned samples of the coming call of step(): `share` of each rank. `total` of all ranks, with logical
  /// shards of the whole update, whose calls have different shares (where an epoch ends within an update,
  /// only sampler::deal_shard gives every number of workers the same samples).
  [[nodiscard]] batch_plan const& planned() const;
  /// Planned samples of an update, gradient accumulation included: what the rate is scaled by.
  [[nodiscard]] double planned_batch() const;
  /// True if all ranks call step() equally often, with this strategy.
  [[nodiscard]] bool lockstep() const;
  /// The rules and their state.
  [[nodiscard]] updater& rules();

  /// What will happen, before an hour of computing is spent: buckets, bytes, memory, passes, and the
  /// rate over `horizon`.
  [[nodiscard]] std::string explain(amount horizon = epochs(1));

 private:
  // The averaged model is in the parameters while this exists.
  class evaluation {
   public:
    explicit evaluation(optimizer& opt);
    ~evaluation();
    evaluation(evaluation const&) = delete;
    evaluation& operator=(evaluation const&) = delete;

   private:
    detail::optimizer_core& core_;
  };

  [[nodiscard]] detail::optimizer_core& core() const;

  detail::optimizer_core* core_ = nullptr;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/optimizer/impl/explain.ipp>
#include <limber/optimizer/impl/optimizer.ipp>
#endif

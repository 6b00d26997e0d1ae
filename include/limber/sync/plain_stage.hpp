// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A user's own stage: a plain value, and the little that the optimizer asks of its state.

#include <limber/core/box.hpp>
#include <limber/sync/agreement.hpp>
#include <limber/sync/stage.hpp>

#include <array>
#include <concepts>
#include <string_view>
#include <type_traits>
#include <utility>

namespace limber::sync {

namespace detail {

template <class M>
using started = decltype(std::declval<M const&>().start(std::declval<training_context&>()));

template <class T, class Stage>
concept owns = std::convertible_to<T, limber::detail::owner<Stage>>;

}  // namespace detail

/// A stage after the rule: a value whose `start(training_context&)` makes the state of it, an object that is
/// not moved any more and does the work on executor and collective of the context:
///
///     void exchange(training_context&)           what is done after an update that is `due`
///     bool due(i64 updates, progress const&)     after so many updates since the last; absent: every one
///     void average_into(training_context&, tensor_list const& values)
///                                                what evaluate() shows, changing nothing but `values`;
///                                                absent: the model as it is
///     void visit(piece_visitor f)                f(name, kept, view) for every piece of state: kept::round
///                                                for what only this rank has of the open round, else
///                                                kept::replicated if all ranks have the same, or
///                                                kept::per_rank. The names `calls` and `samples` are taken
///     void start_first_round(training_context&)  ranks hold one model; after a handshake between rounds, too
///     void count(i64 samples, double rate)       an update was made of so many samples of this rank
///     void finish(training_context&)             at finish(), after the last exchange
///     void interrupt(training_context&)          the collective has failed, and the call with it
///     i64 bytes() const                          memory that it holds, for explain()
///
/// Only `exchange` is required. The value may say more of itself:
///
///     static constexpr bool uniform_updates      true: an exchange has one result on all ranks, and all
///                                                take part. Ahead of it samples are summed, and rate and
///                                                frozen tensors compared, in 32 bytes of their own
///     static constexpr bool unifies              true: all ranks hold one model and one of each buffer then
///     static constexpr capabilities needs        what the collective must be able to do, such as can_post
///     static constexpr capabilities needs_one_of at least one of these
///     i64 period                                 updates between exchanges, for explain()
///     void mix(fingerprint&) const               its options, which ranks compare in the handshake
///
/// Where the value has `parts()` too, and is the strategy, its needs are asked for at compile time.
/// Example  examples/own_strategy.hpp.
/// Errors   what `exchange` throws leaves step(); limber::error from the collective is what recover() is for.
template <class M>
concept starts_model_stage = std::copyable<M> && requires(M const& m, training_context& at) {
  m.start(at);
} &&(detail::owns<detail::started<M>, model_stage> ||
     requires(detail::started<M> & s, training_context& at) { s.exchange(at); });

/// A stage before the rule: a value whose `start(training_context&)` makes a state with
///
///     outcome step(training_context&, i64 n)     the gradient of n samples is in at.gradients; for the
///                                                rule at.inner.step(at.exec, list, at.rate, scale, zero)
///     outcome finish(training_context&)          what is open; absent: nothing is
///
/// Only `step` is required. `static constexpr bool uniform_updates = true` of the value says that all ranks
/// apply the same update; `visit`, `interrupt` and `bytes` of the state and `needs`, `needs_one_of` and `mix`
/// of the value are as for a stage after the rule.
template <class G>
concept starts_gradient_stage = std::copyable<G> && requires(G const& g, training_context& at) {
  g.start(at);
} &&(detail::owns<detail::started<G>, gradient_stage> ||
     requires(detail::started<G> & s, training_context& at, i64 n) {
       { s.step(at, n) } -> std::convertible_to<outcome>;
     });

namespace detail {

/// What the value of a stage says ahead of its start.
struct stage_facts {
  int server = -1;       ///< the rank that serves the others
  i64 contributors = 0;  ///< workers that have a part in one update; 0: all
  capabilities needs = 0;
  capabilities needs_one_of = 0;  ///< at least one of these; 0: none
  bool uniform_updates = false;   ///< all ranks apply the same update
  bool lockstep = true;           ///< all ranks call step() equally often
  i64 period = 1;                 ///< calls between exchanges
  bool counts_epochs = false;     ///< its timing does
  std::string_view name{};        ///< of the type
};

template <class T>
[[nodiscard]] stage_facts facts_of(T const& stage) {
  stage_facts f;
  f.name = limber::detail::type_name<T>();
  if constexpr (requires { f.needs = stage.who.needs; }) {
    f.uniform_updates = stage.who.uniform_updates;
    f.needs = stage.who.needs;
  }
  if constexpr (requires { f.uniform_updates = stage.uniform_updates; })
    f.uniform_updates = stage.uniform_updates;
  if constexpr (requires { f.needs = stage.needs; }) f.needs = stage.needs;
  if constexpr (requires { f.needs_one_of = stage.needs_one_of; }) f.needs_one_of = stage.needs_one_of;
  if constexpr (requires { f.lockstep = stage.lockstep; }) f.lockstep = stage.lockstep;
  if constexpr (requires { f.period = stage.when.period(); }) f.period = stage.when.period();
  if constexpr (requires { stage.when.counts_epochs(); }) f.counts_epochs = stage.when.counts_epochs();
  if constexpr (requires { stage.period.counts_epochs(); }) f.counts_epochs = stage.period.counts_epochs();
  if constexpr (requires { f.server = stage.server; }) f.server = stage.server;
  if constexpr (requires { f.contributors = stage.softsync; }) f.contributors = stage.softsync;
  return f;
}

/// A user's state behind the interface of a stage: what the adapters of both have in common.
template <class Stage, class Value>
class plain_stage : public Stage {
 public:
  plain_stage(Value const& v, training_context& at) : state_(v.start(at)) {
    fingerprint h;
    h.mix(limber::detail::type_name<Value>());
    if constexpr (requires { v.mix(h); }) v.mix(h);
    options_ = static_cast<i64>(h.value());
  }
  void attach(training_context&) override {}
  [[nodiscard]] i64& calls_open() override { return calls_; }
  /// Nothing is communicated in buckets that the optimizer knows.
  [[nodiscard]] bucket_plan const& plan() const override {
    static bucket_plan const none;
    return none;
  }
  [[nodiscard]] i64 bytes() const override {
    i64 n = 0;
    if constexpr (requires { n = state_.bytes(); }) n = state_.bytes();
    return n;
  }
  void mix(fingerprint& h) const override { h.mix(options_); }

 protected:
  void visit_state(piece_visitor f) {
    if constexpr (requires { state_.visit(f); }) state_.visit(f);
  }
  void interrupt_state(training_context& at) {
    if constexpr (requires { state_.interrupt(at); }) state_.interrupt(at);
  }

  started<Value> state_;
  i64 calls_ = 0;  // since the last exchange
  i64 options_;    // a fingerprint of what the value says of them
};

template <class M>
class plain_model_stage final : public plain_stage<model_stage, M> {
 public:
  plain_model_stage(M const& m, training_context& at) : plain_stage<model_stage, M>(m, at) {
    this->unifies = false;
    if constexpr (requires { this->unifies = m.unifies; }) this->unifies = m.unifies;
    if constexpr (requires { period_ = m.period; }) period_ = m.period;
  }
  // Another merge was made, which subsumes this one.
  void start_round(training_context&) override { calls_ = samples_ = 0; }
  void start_first_round(training_context& at) override {
    if constexpr (requires { state_.start_first_round(at); }) state_.start_first_round(at);
  }
  void count(i64 own, double rate) override {
    ++calls_;
    samples_ += own;
    if constexpr (requires { state_.count(own, rate); }) state_.count(own, rate);
  }
  [[nodiscard]] bool due(training_context const& at) const override {
    bool yes = true;
    if constexpr (requires { yes = state_.due(calls_, at.now); }) yes = state_.due(calls_, at.now);
    return yes;
  }
  i64 run(training_context& at) override {
    i64 const total = this->uniform_updates ? agree_on_samples(at) : 0;
    state_.exchange(at);
    calls_ = samples_ = 0;
    return total;
  }
  void close(training_context& at) override {
    if constexpr (requires { state_.finish(at); }) state_.finish(at);
  }
  void interrupt(training_context& at) override { this->interrupt_state(at); }
  void average_into(training_context& at, tensor_list const& values) override {
    if constexpr (requires { state_.average_into(at, values); }) state_.average_into(at, values);
  }
  void visit(kept, piece_visitor f) override {
    f("samples", kept::round, number_view(samples_));
    this->visit_state(f);
  }
  [[nodiscard]] i64 period() const override { return period_; }

 private:
  using plain_stage<model_stage, M>::state_;
  using plain_stage<model_stage, M>::calls_;

  // Samples of all ranks since the last exchange.
  i64 agree_on_samples(training_context& at) const {
    if (at.comm.size() == 1) return samples_;
    std::array<double, 1 + agreement::fields> mine{static_cast<double>(samples_)}, all{};
    agreement::write(&mine[1], at, at.comm.size());
    at.comm.all_reduce(const_view(mine, "exchange: samples"), view(all, "exchange: samples")).wait();
    agreement::expect(&all[1], at, at.comm);
    return static_cast<i64>(all[0]);
  }

  i64 period_ = 1;
  i64 samples_ = 0;  // that this rank applied since the last exchange
};

template <class G>
class plain_gradient_stage final : public plain_stage<gradient_stage, G> {
 public:
  using plain_stage<gradient_stage, G>::plain_stage;
  outcome step(training_context& at, i64 n) override {
    ++calls_;
    outcome const o = state_.step(at, n);
    if (o.due) calls_ = 0;
    return o;
  }
  outcome finish(training_context& at) override {
    calls_ = 0;
    outcome o;
    if constexpr (requires { o = state_.finish(at); }) o = state_.finish(at);
    return o;
  }
  i64 interrupt(training_context& at) override {
    this->interrupt_state(at);
    return std::exchange(calls_, 0);
  }
  void visit(piece_visitor f) override { this->visit_state(f); }
  [[nodiscard]] bool open() const override { return calls_ > 0; }

 private:
  using plain_stage<gradient_stage, G>::state_;
  using plain_stage<gradient_stage, G>::calls_;
};

template <class Stage>
class any_stage {
 public:
  template <class T>
    requires(!std::same_as<T, any_stage> &&
             (std::same_as<Stage, model_stage> ? starts_model_stage<T> : starts_gradient_stage<T>))
  any_stage(T stage)
      : facts_(facts_of(stage)),
        stage_(std::in_place, std::move(stage)),
        start_([](void const* value, training_context& at) -> limber::detail::owner<Stage> {
          T const& held = *static_cast<T const*>(value);
          if constexpr (owns<started<T>, Stage>)
            return held.start(at);
          else
            return limber::detail::owner<Stage>(new adapter<T>(held, at));
        }) {}
  [[nodiscard]] limber::detail::owner<Stage> start(training_context& at) const {
    auto stage = start_(stage_.get(), at);
    stage->uniform_updates = facts_.uniform_updates;
    stage->lockstep = facts_.lockstep;
    return stage;
  }
  [[nodiscard]] stage_facts const& facts() const noexcept { return facts_; }

 private:
  template <class T>
  using adapter =
      std::conditional_t<std::same_as<Stage, model_stage>, plain_model_stage<T>, plain_gradient_stage<T>>;

  stage_facts facts_;
  limber::detail::box stage_;
  limber::detail::owner<Stage> (*start_)(void const*, training_context&);
};

}  // namespace detail

/// Any stage before the rule: a value with `start(training_context&)`, and what it says of itself.
using any_gradient_stage = detail::any_stage<gradient_stage>;
/// Any stage after the rule.
using any_model_stage = detail::any_stage<model_stage>;

}  // namespace limber::sync

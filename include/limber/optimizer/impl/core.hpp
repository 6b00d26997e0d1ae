// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What is behind an optimizer: one object that does not move, of one type.

#include <limber/fuse/parameter_lists.hpp>
#include <limber/optimizer.hpp>
#include <limber/optimizer/impl/interrupted_step.hpp>
#include <limber/optimizer/impl/planning.hpp>
#include <limber/sync/impl/exchange_state.hpp>

namespace limber::detail {

/// The call of step() that begin() has announced: its samples, and which gradients the trainer has declared
/// complete.
///
/// Errors   std::invalid_argument naming the call, and the tensor or the samples; nothing happened then.
class open_call {
 public:
  void open(i64 n, parameter_lists const& tensors) {
    expects(n >= 0, "begin: the number of samples must not be negative, got ", n);
    expects(samples_ < 0, "begin: called twice without step(); ", samples_, " samples are open");
    samples_ = n;
    marked_.assign(tensors.names.size(), 0);
  }
  /// @return the samples of the call
  [[nodiscard]] i64 close() {
    expects(samples_ >= 0, "step: say how many samples the gradient is of, by step(n) or begin(n)");
    return std::exchange(samples_, -1);
  }
  void expect_closed(std::string_view call, std::string_view advice) const {
    expects(samples_ < 0, call, ": begin(", samples_, ") was called; ", advice);
  }

  /// Marks a tensor, at most once a call, and calls start(samples); counts the time that it takes.
  void mark(i64 tensor, parameter_lists const& tensors, clock_function const& clock,
            function_ref<void(i64 n)> start) {
    auto const t = static_cast<std::size_t>(tensor);
    expects(samples_ >= 0, "mark_ready: '", tensors.names[t], "' was marked without begin(n)");
    expects(marked_[t] == 0, "mark_ready: '", tensors.names[t], "' was marked twice");
    marked_[t] = 1;
    double const before = clock();
    start(samples_);
    seconds_ += clock() - before;
  }
  /// Seconds in `mark` since this was asked for.
  [[nodiscard]] double marking_seconds() noexcept { return std::exchange(seconds_, 0.0); }

 private:
  i64 samples_ = -1;  // −1: no call is open
  std::vector<i64> marked_;
  double seconds_ = 0;
};

/// Gathers facts, evaluates the rate, drives the strategy, and alone moves progress.
class optimizer_core {
 public:
  explicit optimizer_core(optimizer_parts parts);
  optimizer_core(optimizer_core const&) = delete;
  optimizer_core& operator=(optimizer_core const&) = delete;

  // As in optimizer, which says what they do.
  void begin(i64 n);
  void mark_ready(i64 tensor);
  step_report const& step();
  step_report const& step(i64 n);
  void finish();
  void serve(function_ref<void(step_report const&)> each_update);
  void resize(communicator comm);
  recovery recover(communicator comm, function_ref<void(recovery const&)> also);
  void forget() { pending_recovery_.invalidate(); }
  void handshake();
  void begin_evaluation();
  void end_evaluation();
  void visit(state_visitor f);
  [[nodiscard]] std::string explain(amount horizon) const;
  [[nodiscard]] sync::open_work open() { return {strategy_.accumulating(), strategy_.open()}; }
  [[nodiscard]] double rate() const { return rate_(at_.now); }
  [[nodiscard]] step_report const& last() const noexcept { return report_; }
  [[nodiscard]] batch_plan const& planned() const noexcept { return planning_; }
  [[nodiscard]] double planned_batch() const;

  [[nodiscard]] parameter_lists const& tensors() const noexcept { return tensors_; }
  [[nodiscard]] sync::exchange_state const& strategy() const noexcept { return strategy_; }
  [[nodiscard]] sync::training_context& context() noexcept { return at_; }

 private:
  [[nodiscard]] recovery handshake_with_all();
  [[nodiscard]] std::uint64_t fingerprint_of_run() const;
  [[nodiscard]] std::string description_of_run() const;

  // What the policy says for so many workers; changes nothing.
  [[nodiscard]] batch_plan plan(int world) const { return plan(batch_facts{world, at_.now}); }
  [[nodiscard]] batch_plan plan(batch_facts const& facts) const;
  [[nodiscard]] i64 workers() const noexcept;
  void replan(i64 n);
  void adopt(batch_plan p);
  void plan_call();
  void rearm();

  double checked_rate();
  step_report const& run(i64 n);
  void guarded(i64 counted, function_ref<void()> f);
  void on_update(sync::outcome const& o);
  void move(sync::outcome const& o);
  void describe(sync::outcome const& o, double rate);
  void expect_idle(std::string_view call) const;

  parameter_lists tensors_;
  options options_;
  any_schedule rate_;
  sync::training_context at_;
  communicator_user user_;
  sync::exchange_state strategy_;
  batch_plan planning_;
  step_report report_;
  open_call call_;
  interrupted_step pending_recovery_;
  bool met_ = false;
  bool evaluating_ = false;
  double last_end_ = 0;  // of the clock, when the call before returned
  compute_time times_;
  progress considered_{};  // when the policy was last asked
};

}  // namespace limber::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A strategy at work: what the optimizer drives.

#include <limber/core/function_ref.hpp>
#include <limber/sync/exchange.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace limber::sync {

/// A strategy at work.
class exchange_state {
 public:
  explicit exchange_state(exchange parts);
  /// Makes the stages. Called once, when the context has rules and a plan.
  void start(training_context& at);

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
  void attach(training_context& at);
  /// Starts the first round from the model as it is.
  void start_first_round(training_context& at);
  /// Tensor i's gradient of the coming call, of n samples, is complete: what can be sent already is.
  void mark_ready(training_context& at, i64 n, i64 i) { gradients_->mark_ready(at, n, i); }
  /// One call: accumulates n samples' gradient, updates and merges what is due.
  outcome step(training_context& at, i64 n);
  /// Closes what is open: exchanges accumulated gradients, merges models. Rounds that other ranks still
  /// need come first, each as in `serve`.
  outcome finish(training_context& at, before_update rate_of, on_update after);
  /// Gives up what cannot be finished because the group has failed, without a message to anybody. Gradients
  /// that were accumulated and not applied are void; models stay as they are, to be merged in the next group.
  [[nodiscard]] interruption interrupt(training_context& at);

  /// Exchanges that were completed since the last whole call: who has more of them is further.
  [[nodiscard]] i64 completed() const;
  void set_completed(i64 sum) { completed_ += sum - completed(); }
  /// This rank has taken another's state, with what was completed in it.
  void join(i64 completed);

  /// Serves the other ranks until all of them have finished. Calls rate_of() ahead of every update, for
  /// `at.rate`, and after(outcome) when it is made.
  void serve(training_context& at, before_update rate_of, on_update after);

  /// Writes the mean of the ranks' models to the parameters and buffers, where models are merged at all; what
  /// was there is kept until `end_evaluation`.
  void begin_evaluation(training_context& at);
  void end_evaluation(training_context& at);

  /// Calls f(name, how, view) for every piece of the strategy's state; control comes first.
  void visit(piece_visitor f);
  /// How parameters and other copies of the model relate between ranks right now.
  [[nodiscard]] kept model_kept();
  /// The same for buffers, which every rank changes while it computes.
  [[nodiscard]] kept buffers_kept();
  /// True between merges, when ranks may hold different models.
  [[nodiscard]] bool open();
  /// True while gradients were accumulated that no update was made of.
  [[nodiscard]] bool accumulating() { return gradients_->calls_open() > 0; }
  /// Calls that were accumulated since the last update.
  [[nodiscard]] i64 calls_open() { return gradients_->calls_open(); }
  /// Calls f(what, period, plan) for everything that is communicated.
  void communicated(function_ref<void(std::string what, i64 period, bucket_plan const&)> f) const;
  /// Calls f(what, value) for what must be equal on all ranks.
  void describe(function_ref<void(std::string_view what, std::string const& value)> f) const;
  [[nodiscard]] i64 bytes() const;
  /// Mixes in what must be equal on all ranks.
  void mix(fingerprint& h) const;

 private:
  struct copies {
    slab parameters, buffers;
  };

  void assume_planned(training_context const& at, outcome& o);
  void commit(outcome const& o, bool in_step);
  void count(outcome const& o, double rate);
  void merge_if(training_context& at, outcome& o, function_ref<bool(model_stage&)> is_due);

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

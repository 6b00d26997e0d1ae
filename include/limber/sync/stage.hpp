// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The two stages of a strategy, as the optimizer drives them: what they work on, what they report back.

#include <limber/comm/any_communicator.hpp>
#include <limber/core/box.hpp>
#include <limber/core/fingerprint.hpp>
#include <limber/core/function_ref.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/progress.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/updater.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace limber::sync {

/// The strategy's view of a training run. It sees a rate and a planned count, never a schedule or a
/// batch policy.
struct training_context {
  any_executor exec;
  communicator comm;           ///< all workers
  updater inner;               ///< the trainer's rules and their state
  tensor_list gradients;       ///< in the order of inner.values()
  tensor_list buffers;         ///< averaged at synchronisations
  std::vector<i64> use_order;  ///< indices into the lists, in the order of registration
  bucket_options buckets;
  gradient_is gradient = gradient_is::mean;

  i64 id = 0;  ///< of the optimizer: alike on all ranks, unlike all others
  progress now{};
  double rate = 0;           ///< η of this call
  double planned = 1;        ///< planned samples of all workers in one call
  double planned_share = 1;  ///< planned samples of one worker in one call
  i64 shards = 0;            ///< logical shards of an update, reduced one by one; 0: none
  i64 calls_per_update = 1;  ///< calls that the shards of one update take
};

/// What one call did. The optimizer alone moves progress, by these facts.
struct outcome {
  i64 calls = 0;         ///< calls that went into the update
  bool due = false;      ///< an update was to be made
  bool applied = false;  ///< agreed: it counts as a step
  i64 samples = 0;       ///< agreed: samples it counts for; a merge may correct it, also downwards
  i64 steps = 1;         ///< steps it counts for, when applied: others' updates may have come with it

  bool skipped = false;   ///< this rank's update was dropped: the gradient was not finite
  i64 culprit = -1;       ///< first tensor that was not finite
  int culprit_rank = -1;  ///< the rank it came from, when it was one alone
  bool overflowed =
      false;  ///< no rank's gradient was: their sum left the range of what it was sent or added in

  i64 own_samples = 0;          ///< this rank's samples in what it applied
  double contributions = 0;     ///< gradients that were averaged
  double weighted_squares = 0;  ///< Σ bᵢ‖gᵢ‖²
  double mean_square = 0;       ///< ‖ḡ‖²
};

/// Moves progress by what a call did. @param uniform_updates  all ranks applied the same gradient
inline void count_outcome(progress& now, outcome const& o, bool uniform_updates) {
  if (o.applied) now.count_steps(o.steps);
  now.samples += o.samples;
  if (uniform_updates && o.applied)
    now.noise.update(o.contributions, static_cast<double>(o.samples), o.weighted_squares, o.mean_square);
}

/// What a strategy has begun and not ended.
struct open_work {
  bool gradients = false;  ///< were folded in, and no update was made of them
  bool models = false;     ///< moved apart, and were not merged

  [[nodiscard]] bool any() const noexcept { return gradients || models; }
};

/// What an engine's failure in the midst of a call left of it, on this rank.
struct interruption {
  i64 voided = 0;                     ///< calls that were folded in and went into no update
  std::optional<outcome> standing{};  ///< of a local update that was made, though its models were not merged
  bool in_step = false;               ///< it was made by step(), not by finish()
};

/// What happens to gradient history at a merge of models.
enum class moments {
  keep,     ///< each worker's own goes on (local SGD's default)
  average,  ///< averaged with the same weights as the models
  reset,    ///< starts again at zero
};

/// Called ahead of an update that is made outside of step(): sets the context's rate.
using before_update = function_ref<void()>;
/// Called after such an update.
using on_update = function_ref<void(outcome const&)>;
/// Called for a piece of a stage's state: its name, its relation to the same piece on other ranks, its
/// memory.
using piece_visitor = function_ref<void(std::string const& name, kept how, tensor_view)>;

namespace detail {
/// A counter of a stage as a piece of state.
[[nodiscard]] inline tensor_view number_view(i64& x) noexcept {
  return {reinterpret_cast<std::byte*>(&x), 1, dtype::int64, {}};
}
/// A control block in the host's memory: its bytes.
template <class T>
[[nodiscard]] tensor_view bytes_view(T& x, std::string_view name = {}) noexcept {
  return {reinterpret_cast<std::byte*>(&x), static_cast<i64>(sizeof x), dtype::uint8, name};
}
/// Mixes numbers in, in this order.
template <class... T>
void mix_all(fingerprint& h, T... x) {
  (h.mix(static_cast<std::conditional_t<std::is_floating_point_v<T>, double, i64>>(x)), ...);
}
/// Calls f(name, how, view) for every tensor of a list.
inline void visit_list(piece_visitor f, kept how, std::string_view prefix, tensor_list const& list) {
  for (auto const& t : list) f(text(prefix, t.name), how, t);
}
}  // namespace detail

/// What stages before and after the rule have in common.
class stage_interface {
 public:
  bool uniform_updates = false;  ///< an update, or exchange, has one result on all ranks; as the value said
  bool lockstep = true;          ///< all ranks call step() equally often; likewise

  virtual ~stage_interface() = default;

  /// Enters the groups of `at.comm`; control state is agreed on.
  virtual void attach(training_context& at) = 0;
  /// Serves the other ranks until all have finished.
  virtual void serve(training_context&, before_update, on_update) {}

  /// Before the rule: calls accumulated since the last exchange; after it: updates. Part of the state.
  [[nodiscard]] virtual i64& calls_open() = 0;
  [[nodiscard]] virtual bucket_plan const& plan() const = 0;
  [[nodiscard]] virtual i64 period() const { return 1; }
  /// False where there is nobody to communicate with.
  [[nodiscard]] virtual bool communicates() const { return true; }
  [[nodiscard]] virtual i64 bytes() const = 0;
  /// Mixes in what must be equal on all ranks.
  virtual void mix(fingerprint& h) const = 0;
};

/// What happens before the rule: gradients are accumulated, communicated, and the rule is applied.
///
/// Order    attach, then step … finish. All ranks call what communicates equally often, unless `lockstep` is
///          false. `interrupt` comes in the place of anything that the engine's failure cut short.
class gradient_stage : public stage_interface {
 public:
  /// Tensor i's gradient of the coming call, of n samples, is complete.
  virtual void mark_ready(training_context&, i64 /*n*/, i64 /*i*/) {}
  /// Accumulates the gradient of n samples; exchanges and updates if it is due.
  virtual outcome step(training_context& at, i64 n) = 0;
  /// Exchanges what is open, if anything is.
  virtual outcome finish(training_context&) { return {}; }
  /// Before `finish`: closes rounds that other ranks still need.
  virtual void drain(training_context&, before_update, on_update) {}
  /// Gives up the open round without a message to anybody. @return the calls in it
  virtual i64 interrupt(training_context& at) = 0;
  /// An update that was made in the call that failed, and is valid.
  [[nodiscard]] virtual std::optional<outcome> committed() { return {}; }

  virtual void visit(piece_visitor f) = 0;
  [[nodiscard]] virtual bool open() const = 0;
};

/// What happens after the rule: models are communicated and merged.
class model_stage : public stage_interface {
 public:
  bool unifies = true;  ///< its group holds one model, and one of each buffer, after an exchange

  /// Starts a round from the model as it is.
  virtual void start_round(training_context& at) = 0;
  /// The first start of all, and what follows a handshake.
  virtual void start_first_round(training_context& at) = 0;
  /// Counts one update at `rate`, in which this rank applied `own` samples.
  virtual void count(i64 own, double rate) = 0;
  [[nodiscard]] virtual bool due(training_context const& at) const = 0;
  /// One exchange. @return the samples that went into it, if ranks agree on them
  virtual i64 run(training_context& at) = 0;
  /// At finish(), after the last exchange.
  virtual void close(training_context&) {}
  virtual void interrupt(training_context&) {}
  /// Exchanges that were completed in the call under way, besides those of `run`.
  [[nodiscard]] virtual i64 completed() const { return 0; }
  /// This rank has taken another's state.
  virtual void join() {}
  /// Writes the mean of the models to `values`, that of buffers to the buffers; changes nothing else.
  virtual void average_into(training_context& at, tensor_list const& values) = 0;

  /// @param shared  how what is the same on all ranks of the group relates to other ranks; what is each
  ///                rank's own of the open round is kept::round
  virtual void visit(kept shared, piece_visitor f) = 0;
};

}  // namespace limber::sync

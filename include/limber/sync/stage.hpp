// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The two stages of a strategy, before and after the rule, as the optimizer drives them.

#include <limber/core/box.hpp>
#include <limber/core/fingerprint.hpp>
#include <limber/core/function_ref.hpp>
#include <limber/core/kinds.hpp>
#include <limber/sync/training_context.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

namespace limber::sync {

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

/// What happens before the rule: gradients are accumulated, communicated, and the rule is applied.
///
/// Order    attach, then step … finish. All ranks call what communicates equally often, unless `lockstep` is
///          false. `interrupt` comes in the place of anything that the engine's failure cut short.
class gradient_stage {
 public:
  bool uniform_updates =
      false;             ///< all ranks apply the same update; as the value said that it was started from
  bool lockstep = true;  ///< all ranks call step() equally often; likewise

  virtual ~gradient_stage() = default;

  /// Enters the groups of `at.comm`; control state is agreed on.
  virtual void attach(training_context& at) = 0;
  /// Tensor i's gradient of the coming call, of n samples, is complete.
  virtual void mark_ready(training_context&, i64 /*n*/, i64 /*i*/) {}
  /// Accumulates the gradient of n samples; exchanges and updates if it is due.
  virtual outcome step(training_context& at, i64 n) = 0;
  /// Exchanges what is open, if anything is.
  virtual outcome finish(training_context&) { return {}; }
  /// Before `finish`: closes rounds that other ranks still need.
  virtual void drain(training_context&, before_update, on_update) {}
  /// Serves the other ranks until all have finished.
  virtual void serve(training_context&, before_update, on_update) {}
  /// Gives up the open round without a message to anybody. @return the calls in it
  virtual i64 interrupt(training_context& at) = 0;
  /// An update that was made in the call that failed, and is valid.
  [[nodiscard]] virtual std::optional<outcome> committed() { return {}; }

  virtual void visit(piece_visitor f) = 0;
  /// Calls accumulated since the last exchange; part of the state.
  [[nodiscard]] virtual i64& calls_open() = 0;
  [[nodiscard]] virtual bool open() const = 0;
  [[nodiscard]] virtual bucket_plan const& plan() const = 0;
  [[nodiscard]] virtual i64 period() const { return 1; }
  [[nodiscard]] virtual i64 bytes() const = 0;
  /// Mixes in what must be equal on all ranks.
  virtual void mix(fingerprint& h) const = 0;
};

/// What happens after the rule: models are communicated and merged.
class model_stage {
 public:
  bool uniform_updates = false;  ///< all ranks see the same result of an exchange
  bool unifies = true;           ///< its group holds one model, and one of each buffer, after an exchange
  bool lockstep = true;          ///< all ranks call step() equally often

  virtual ~model_stage() = default;

  virtual void attach(training_context& at) = 0;
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
  virtual void serve(training_context&, before_update, on_update) {}
  virtual void interrupt(training_context&) {}
  /// Exchanges that were completed in the call under way, besides those of `run`.
  [[nodiscard]] virtual i64 completed() const { return 0; }
  /// This rank has taken another's state.
  virtual void join() {}
  /// Writes the mean of the models to `values`, that of buffers to the buffers; changes nothing else.
  virtual void average_into(training_context& at, tensor_list const& values) = 0;

  /// @param shared  how what is the same on all ranks of the group relates to other ranks; what is each
  /// rank's
  ///                own of the open round is kept::round
  virtual void visit(kept shared, piece_visitor f) = 0;
  /// Updates since the last exchange; part of the state.
  [[nodiscard]] virtual i64& calls_open() = 0;
  [[nodiscard]] virtual bucket_plan const& plan() const = 0;
  [[nodiscard]] virtual i64 period() const { return 1; }
  [[nodiscard]] virtual i64 bytes() const = 0;
  virtual void mix(fingerprint& h) const = 0;
};

}  // namespace limber::sync

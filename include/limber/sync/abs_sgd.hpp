// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// ABS-SGD, a strategy and its stage before the rule, one round late: gradients are reduced while workers
/// compute.

#include <limber/sync/exchange.hpp>
#include <limber/sync/stage.hpp>

#include <vector>

namespace limber::sync {

/// One rank's part in one round.
struct round_entry {
  i64 round = 0;
  int rank = 0;
  i64 calls = 0;      ///< of step(), also those without samples
  i64 samples = 0;    ///< nᵢ
  bool last = false;  ///< closed by finish()

  bool operator==(round_entry const&) const = default;
};

/// Rounds in the order in which they closed; of one rank, or of all ranks after one another.
using round_log = std::vector<round_entry>;

/// How the rate of a round follows the samples N that it happened to hold; N_ref: planned of one call.
enum class round_rate {
  constant,  ///< η
  linear,    ///< η N / N_ref
  sqrt,      ///< η √(N / N_ref)
};

/// ABS-SGD: while the sum of one round's gradients crosses, every worker accumulates the next round's at a
/// fixed model, without a batch size set in advance: as many micro-batches as fit.
///
///     Gᵢ ← Σ bᵢ gᵢ(xₜ),  nᵢ ← Σ bᵢ        over the micro-batches of round t
///     xₜ₊₁ ← rule(xₜ, Σᵢ Gᵢ / Σᵢ nᵢ of round t − 1)        when round t closes
///
/// Call         step(n) once a micro-batch; workers may call it unequally often. report.applied says that an
///              update was made; finish() closes the rounds that others still need, and flushes the last.
/// Delay        exactly one round: the gradient at xₜ₋₁ moves xₜ. The first round moves nothing.
/// Choices      a round closes when every worker has folded in `min_micro_batches` and the exchange before
///              has arrived; who has `max_micro_batches` closes it by itself. 1 is synchronous SGD with a
///              delay of one step at a fixed batch (OD-SGD).
/// Units        the planned batch is one micro-batch of every worker; `rate` says how η follows what a
///              round held. With delay 1 and momentum μ a curvature h is stable for η h < 1 − μ alone: tune
///              η and μ for this strategy.
/// Bits         not repeatable on a real clock; `log` with `replay` gives the same bits again.
/// State        taken between rounds only: finish() first. Buffers are averaged by finish().
/// Memory       one buffer accumulates while a second one is reduced into a third: three times the gradient,
///              in the wire's type where one is set.
/// Collectives  one all-reduce per bucket and one of 48 bytes a round, hidden behind computing, and one
///              8-byte message a round to every other worker. Needs a `mailbox`.
/// Errors       std::invalid_argument if a member is out of range, or the wire has error feedback.
/// Paper        Zhou, Chen and Wu, ABS-SGD: A Delayed Synchronous Stochastic Gradient Descent Algorithm with
///              Adaptive Batch Size for Heterogeneous GPU Clusters, 2023, arXiv:2308.15164. Of it only the
///              abstract was at hand: when a round closes, and `rate`, are our reading.
struct abs_sgd {
  i64 max_micro_batches = 0;  ///< 0: however many fit
  round_rate rate = round_rate::constant;
  double rate_limit = 0;              ///< how much `rate` may multiply η at most; 0: no limit
  round_log* log = nullptr;           ///< every round that this rank closed is appended
  round_log const* replay = nullptr;  ///< rounds close as logged, not when ready
  i64 min_micro_batches = 1;          ///< that a worker folds in before a round closes, ≥ 1

  static constexpr bool uniform_updates = true;  ///< all ranks apply the same update
  static constexpr bool lockstep = false;        ///< ranks call step() as often as they like
  static constexpr capabilities needs = can_post;
  [[nodiscard]] exchange parts() const;
  [[nodiscard]] limber::detail::owner<gradient_stage> start(training_context& at) const;
};

/// The stage before the rule, for an exchange of other parts.
using delayed = abs_sgd;

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/abs_sgd.ipp>
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// ABS-SGD by name.

#include <limber/sync/delayed.hpp>
#include <limber/sync/exchange.hpp>

namespace limber::sync {

/// ABS-SGD: while the sum of one round's gradients crosses, every worker computes the next round's at a
/// fixed model, without a batch size set in advance: as many micro-batches as fit.
///
///     gradient of round t:  Σᵢ Gᵢ / Σᵢ nᵢ  over all micro-batches of all workers, taken at xₜ
///     xₜ₊₁ = rule(xₜ, gradient of round t − 1)
///
/// Call         step(n) once a micro-batch; workers may call it unequally often. report.applied says that an
///              update was made; finish() closes the rounds that others still need, and flushes the last.
/// Choices      a round closes when every worker has folded in a micro-batch and the exchange before has
///              arrived; who has `max_micro_batches` closes it by itself. 1 is synchronous SGD with a
///              delay of one step at a fixed batch (OD-SGD).
/// Units        the planned batch is one micro-batch of every worker; `rate` says how η follows what a
///              round held. With delay 1 and momentum μ a curvature h is stable for η h < 1 − μ alone: tune
///              η and μ for this strategy.
/// Bits         not repeatable on a real clock; `log` with `replay` gives the same bits again.
/// State        taken between rounds only: finish() first. Buffers are averaged by finish().
/// Collectives  one all-reduce per bucket and one of 48 bytes a round, hidden behind computing, and one
///              8-byte message a round to every other worker. Needs a `mailbox`.
/// Paper        Zhou, Chen and Wu, ABS-SGD: A Delayed Synchronous Stochastic Gradient Descent Algorithm with
///              Adaptive Batch Size for Heterogeneous GPU Clusters, 2023, arXiv:2308.15164. Of it only the
///              abstract was at hand: when a round closes, and `rate`, are our reading.
struct abs_sgd {
  i64 max_micro_batches = 0;  ///< 0: however many fit
  round_rate rate = round_rate::constant;
  double rate_limit = 0;              ///< how much `rate` may multiply η at most; 0: no limit
  round_log* log = nullptr;           ///< what each round of this rank held
  round_log const* replay = nullptr;  ///< closes rounds as this log says

  static constexpr capabilities needs = can_post;
  [[nodiscard]] exchange parts() const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/abs_sgd.ipp>
#endif

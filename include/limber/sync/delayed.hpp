// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The stage before the rule, one round late: workers go on computing while gradients are reduced.

#include <limber/core/progress.hpp>
#include <limber/sync/round_log.hpp>
#include <limber/sync/stage.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

namespace limber::sync {

/// How the rate of a round follows the samples N that it happened to hold; N_ref: planned of one call.
enum class round_rate {
  constant,  ///< η
  linear,    ///< η N / N_ref
  sqrt,      ///< η √(N / N_ref)
};

/// A round is ready to close when every worker has accumulated `at_least` calls and the reduction of the
/// round before is complete. A worker closes it by itself at `at_most` calls; 0: however many fit.
struct ready {
  i64 at_least = 1, at_most = 0;

  [[nodiscard]] bool operator()(i64 calls_open, progress const&) const noexcept {
    return calls_open >= at_least;
  }
};

/// Gradients are accumulated at a fixed model while those of the round before are reduced.
///
///     Gᵢ ← Σ bᵢ gᵢ(xₜ),  nᵢ ← Σ bᵢ        over the calls of round t
///     xₜ₊₁ ← rule(xₜ, Σᵢ Gᵢ / Σᵢ nᵢ of round t − 1)        when round t closes
///
/// Delay    exactly one round: the gradient at xₜ₋₁ moves xₜ. The first round moves nothing.
/// Memory   one buffer accumulates while a second one is reduced into a third: three times the gradient, in
///          the wire's type where one is set.
/// Control  Σ nᵢ, norms and non-finite ranks travel in fp64 after the last bucket.
struct delayed {
  ready when{};
  everyone who{};
  round_rate rate = round_rate::constant;
  double rate_limit = 0;              ///< the rate's factor at most; 0: no limit
  round_log* log = nullptr;           ///< every round that this rank closed is appended
  round_log const* replay = nullptr;  ///< rounds close as logged, not when ready

  static constexpr bool uniform_updates = true;  ///< all ranks apply the same update
  static constexpr bool lockstep = false;        ///< ranks call step() as often as they like
  static constexpr capabilities needs = can_post;
  /// @throws std::invalid_argument if a member is out of range, or the wire has error feedback
  [[nodiscard]] limber::detail::owner<gradient_stage> start(training_context& at) const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/delayed.ipp>
#endif

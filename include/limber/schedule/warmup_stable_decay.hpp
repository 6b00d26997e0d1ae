// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Warm-up, a long plateau, and a decay whose start can be put off.

#include <limber/schedule/polynomial.hpp>
#include <limber/schedule/sequence.hpp>
#include <limber/schedule/warmup.hpp>

#include <utility>

namespace limber {

/// Linear warm-up from 0, rate 1 for `stable`, then `decay`, any schedule with an end.
///
///     warmup_stable_decay(1000_steps, 8000_steps, cosine(1000_steps))
///
/// Paper    Hu et al., MiniCPM, arXiv:2404.06395.
/// @throws std::invalid_argument unless all three lengths are ≥ 0 and finite, and share one unit
template <finite_schedule S>
[[nodiscard]] auto warmup_stable_decay(amount warm, amount stable, S decay) {
  return warmup(warm) | lasting(stable, 1) | std::move(decay);
}

/// The same with a linear decay to `to`.
[[nodiscard]] inline auto warmup_stable_decay(amount warm, amount stable, amount decay, double to = 0) {
  return warmup_stable_decay(warm, stable, polynomial{.length = decay, .to = to});
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Streaming DiLoCo by name.

#include <limber/sync/exchange.hpp>
#include <limber/sync/streaming.hpp>

#include <optional>

namespace limber::sync {

/// Streaming DiLoCo: DiLoCo in `fragments`, each of which crosses at its own call and lands `late` calls on,
/// hidden behind computing.
///
///     Δᶠ = x̃ᶠ − x̄ᶠ;   mᶠ ← μ mᶠ + Δᶠ;   x̃ᶠ ← x̃ᶠ − η_o (Δᶠ + μ mᶠ);   xᶠ ← α xᶠ + (1 − α) x̃ᶠ
///
/// Units        `late` in calls, less than `period` / `fragments`. `wire` halves the bytes of what crosses.
/// Choices      fragments are whole tensors, equal in size as far as these allow; equal layers are dealt in
///              strides. One fragment, `late` = 0 and `mixing` = 0 is `diloco`. finish() lands what is in
///              flight and merges all.
/// Collectives  one all-reduce of a fragment, `fragments` times a period.
/// Paper        Douillard et al., Streaming DiLoCo with Overlapping Communication: Towards a Distributed Free
///              Lunch, 2025, arXiv:2501.18512.
struct streaming_diloco {
  i64 period = 100;
  i64 fragments = 4;
  i64 late = 5;                      ///< calls from sending to landing
  double mixing = 0.5;               ///< α, what stays of the local model at landing, in [0, 1)
  double outer_lr = 0.7;             ///< η_o
  double outer_momentum = 0.9;       ///< μ
  std::optional<dtype> wire{};       ///< bf16 or f16: what differences are cast to
  moments at_merge = moments::keep;  ///< the inner rule's history of what lands

  [[nodiscard]] exchange parts() const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/streaming_diloco.ipp>
#endif

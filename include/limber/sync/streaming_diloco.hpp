// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Streaming DiLoCo, and its stage: fragments of the model are communicated while training goes on.

#include <limber/core/dtype.hpp>
#include <limber/fuse/any_rule.hpp>
#include <limber/rule/descent.hpp>
#include <limber/sync/exchange.hpp>
#include <limber/sync/stage.hpp>

#include <optional>
#include <vector>

namespace limber::sync {

/// Deals the tensors of a list to `fragments` groups of nearly equal size, as indices in ascending order.
///
/// Choices  the largest tensor first, to the smallest group so far; equal ones in the order of use. Equal
///          layers are thereby dealt in strides, fragment k getting layers k, k + fragments, …. A tensor is
///          never cut: the largest one is the least that a fragment can be.
/// @param use_order  indices into `tensors` in the order in which forward uses them; empty: list order
/// @throws std::invalid_argument unless every fragment gets a tensor that has elements
[[nodiscard]] std::vector<std::vector<i64>> deal_fragments(tensor_list const& tensors,
                                                           std::vector<i64> use_order, i64 fragments);

/// When fragments are sent and applied, and how much of the local model is kept then.
struct stream {
  i64 period = 100;             ///< H, calls between two sends of a fragment
  i64 fragments = 1;            ///< F
  i64 late = 0;                 ///< calls from sending to applying; less than period / fragments
  double mixing = 0;            ///< α, the share of the local model that is kept when applying, in [0, 1)
  std::optional<dtype> wire{};  ///< bf16 or f16: what differences are cast to
};

/// The model is sent in fragments, fragment f at the calls t ≡ ⌊f H / F⌋ mod H, and applied `late` calls
/// later:
///
///     dᶠ = Σ nᵢ (x̃ᶠ − xᵢᶠ) / Σ nᵢ           at call t: sent, and training goes on
///     x̃ᶠ ← how(x̃ᶠ, dᶠ) at `rate`;   xᵢᶠ ← α xᵢᶠ + (1 − α) x̃ᶠ       at call t + late
///
/// nᵢ are the samples behind xᵢᶠ − x̃ᶠ: what rank i applied since the fragment was last applied, and the
/// share α of those before. With α = 0 the updates made in flight are lost, so their samples count nothing.
///
/// Shapes       fragments are whole tensors, nearly equal in size (`deal_fragments`).
/// State        x̃ and the outer rule's state, replicated; while something is in flight, what was sent. The
///              first round is shorter for all fragments but the first.
/// Collectives  one all-reduce of a fragment, F times a period, not waited for until it is applied; buffers,
///              weight slots and averaged moments follow then, and are waited for.
/// Wire         16 bits halve the bytes. x̃ and the outer rule stay in fp32; how the ranks' differences are
///              added up depends on the engine (`threads`: in float, rounded once).
/// Skips        a rank without samples, or whose fragment is not finite, has weight 0; a fragment that is
///              not finite when the reduced one is applied is replaced by x̃.
/// Moments      by `at_merge`, when a fragment is applied and for its tensors.
/// Choices      with one fragment, late = 0 and α = 0 it is `merge`. finish() applies what is in flight, then
///              merges all fragments at once without mixing. Must be the only stage after the rule.
/// Errors       std::invalid_argument from the constructor if a value is out of range.
/// Paper        Douillard et al., Streaming DiLoCo with Overlapping Communication, 2025, arXiv:2501.18512.
struct streaming {
  stream flow;
  any_rule how;
  double rate;
  moments at_merge;

  explicit streaming(stream s, any_rule h = descent{}, double r = 1, moments m = moments::keep);

  static constexpr bool uniform_updates = true;  ///< all ranks see the same result
  [[nodiscard]] limber::detail::owner<model_stage> start(training_context& at) const;
};

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

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Dynamic SGD by its paper's name.

#include <limber/schedule/linear_scaling.hpp>

namespace limber {

/// The rate of Dynamic SGD: linear scaling that follows a new batch gradually (momentum compensation).
///
///     k = B_new / B_old       T = 8 k
///     η_j = η_old (1 + (k − 1) j / T)     j = 1 … T updates after the change
///
/// At a growth of the batch the momentum still holds gradients averaged over fewer samples, and a rate
/// that is multiplied by k at once multiplies the variance of the update by k².
/// State    the ramp in `progress::batch`: a change of plan re-arms it (`ramp::rearmed`), from the batch
///          that is effective then; it is saved with the progress. Nothing here.
/// Choices  `ramp_rule` holds T and says what happens when the batch shrinks (at once). A schedule that
///          multiplies this one goes on during a ramp. Meant for the outside form of momentum; the inside
///          form needs its momentum correction besides, once and not instead.
/// Paper    Lin et al., Dynamic Mini-batch SGD for Elastic Distributed Training, arXiv:1904.12043.
/// @throws std::invalid_argument unless base_lr ≥ 0, base_batch > 0, warmup ≥ 0, and all are finite
[[nodiscard]] inline linear_scaling dynamic_sgd(double base_lr, double base_batch, amount warmup = {}) {
  return {.base_lr = base_lr, .base_batch = base_batch, .warmup = warmup};
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Control state that lives on the device: progress, the update in flight, what crosses the wire.

#include <limber/core/kinds.hpp>
#include <limber/core/progress.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/norm_report.hpp>
#include <limber/fuse/rule_counters.hpp>

#include <type_traits>

namespace limber::gpu {

/// Everything that a step leaves to the next one. Written by `advance`, mirrored to the host later.
struct device_state {
  progress now{};            ///< `calls` counts advances; `steps`, `samples` what was applied before
  hyper_block hyper{};       ///< of the update in flight
  double count = 0;          ///< this rank's samples in it
  i64 pending = 0;           ///< 1: there is one
  i64 skipped_in_a_row = 0;  ///< updates dropped because a gradient was not finite
  i64 culprit = -1;          ///< first tensor that was not finite in the last update dropped
};
static_assert(std::is_trivially_copyable_v<device_state>);

/// What travels beside the gradients, in fp64, summed over the ranks.
struct wire_control {
  double count = 0;             ///< Σ bᵢ
  double weighted_squares = 0;  ///< Σ bᵢ‖gᵢ‖²
  double contributions = 0;     ///< ranks with samples
};

/// What packing and landing read.
struct wire_facts {
  scalar weight{1.0};  ///< of this rank's gradient: bᵢ / B, or 1 / B where it is a sum
  double nominal = 1;  ///< B, the planned samples of all ranks
  gradient_is gradient = gradient_is::mean;
};

/// Packs with a weight from memory, so that one captured graph serves every batch.
struct pack_from_memory {
  wire_facts const* wire;
  template <class T>
  [[nodiscard]] LIMBER_HD pack at(i64) const noexcept {
    return {wire->weight, false};
  }
};

/// Fills this rank's control block after packing, whose norms are `local`.
struct fill_control {
  wire_control* mine;
  wire_facts const* wire;
  norm_facts local;
  LIMBER_HD void operator()(i64) const noexcept {
    double const b = mine->count;
    double const square = local.finite() ? local.total_square() : 0;
    bool const any = b > 0;
    mine->contributions = any ? 1 : 0;
    mine->weighted_squares = any ? (wire->gradient == gradient_is::mean ? b : 1 / b) * square : 0;
  }
};

/// Turns the summed control block into the scale of the update.
struct settle {
  hyper_block* hyper;    ///< what the update reads
  hyper_block* settled;  ///< the same for the next `advance`, which writes the other
  wire_control const* all;
  wire_facts const* wire;
  LIMBER_HD void operator()(i64) const noexcept {
    bool const any = all->count > 0;
    *hyper = hyper_block(hyper->rate, any ? wire->nominal / all->count : 1, !any);
    *settled = *hyper;
  }
};

}  // namespace limber::gpu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What all tensors of one update share, in memory that kernels read.

#include <limber/core/config.hpp>

#include <cstdint>

namespace limber {

/// The hyper block: written by the host before a step, or by a kernel that evaluates the schedule.
struct hyper_block {
  double rate = 0;         ///< η
  double scale = 1;        ///< multiplies every gradient: unscales, averages
  float narrow_scale = 1;  ///< the same for arithmetic in float
  std::int32_t hold = 0;   ///< 1: nobody had samples; no update is made

  hyper_block() = default;
  LIMBER_HD hyper_block(double r, double s, bool none = false) noexcept
      : rate(r), scale(s), narrow_scale(static_cast<float>(s)), hold(none ? 1 : 0) {}

  template <class T>
  [[nodiscard]] LIMBER_HD T scale_as() const noexcept {
    if constexpr (sizeof(T) == sizeof(double))
      return scale;
    else
      return narrow_scale;
  }
};

}  // namespace limber

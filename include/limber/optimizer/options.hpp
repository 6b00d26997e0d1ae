// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of an optimizer.

#include <limber/batch/any_policy.hpp>
#include <limber/batch/per_worker.hpp>
#include <limber/batch/plan.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/math.hpp>
#include <limber/core/progress.hpp>
#include <limber/fuse/bucket_plan.hpp>

#include <utility>

namespace limber {

/// Options of an optimizer; all have defaults.
struct options {
  /// Plans the global batch and each worker's share: per_worker, fixed, logical_shards, dbs, noise_scale,
  /// … or your own. One that wants to be asked again is, with every rank's compute time.
  any_policy batch = per_worker{1};
  i64 epoch_size = 0;  ///< samples an epoch has; required where the schedule counts epochs
  ramp_rule ramp{};    ///< how the rate follows a change of the planned batch
  gradient_is gradient = gradient_is::mean;  ///< what the host's gradient is of its n samples
  bucket_options buckets{};                  ///< how gradients are cut for the wire
  i64 max_skipped = 100;                     ///< non-finite updates in a row that a rank puts up with
  clock_function clock = steady_seconds;     ///< where time comes from
};

/// @throws std::invalid_argument naming the option and its value
[[nodiscard]] inline options check(options o) {
  expects(o.epoch_size >= 0, "options: epoch_size must not be negative, got ", o.epoch_size);
  expects(o.max_skipped >= 0, "options: max_skipped must not be negative, got ", o.max_skipped);
  expects(o.ramp.steps_per_growth >= 0 && math::finite(o.ramp.steps_per_growth),
          "options: ramp.steps_per_growth must be a number of at least 0, got ", o.ramp.steps_per_growth);
  expects(o.clock != nullptr, "options: clock is empty");
  return o;
}

}  // namespace limber

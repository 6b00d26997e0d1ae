// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What an optimizer tells after every call.

#include <limber/core/error.hpp>
#include <limber/optimizer/registry.hpp>
#include <limber/sync/site.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace limber {

/// What the last call of step() did.
struct step_report {
  double rate = 0;           ///< η of the call
  bool applied = false;      ///< progress moved by one step
  i64 samples = 0;           ///< samples it counted for
  bool skipped = false;      ///< this rank's update was dropped: a gradient was not finite
  std::string_view culprit;  ///< the first tensor that was not finite
  int culprit_rank = -1;     ///< the rank it came from, when it was one alone
  i64 skipped_in_a_row = 0;
  double host_seconds = 0;      ///< from the end of the call before to this one, without mark_ready
  double marking_seconds = 0;   ///< inside mark_ready, before the call
  double exchange_seconds = 0;  ///< inside the call: what backward did not hide
};

namespace detail {

/// Nobody is told.
struct untold {
  void operator()(step_report const&) const noexcept {}
};

inline void describe(step_report& report, sync::outcome const& o, double rate, registry const& tensors) {
  report.rate = rate;
  report.applied = o.applied;
  report.samples = o.samples;
  report.skipped = o.skipped;
  report.culprit = o.culprit >= 0 ? std::string_view(tensors.names[static_cast<std::size_t>(o.culprit)]) : "";
  report.culprit_rank = o.culprit_rank;
}

/// @throws limber::error if more updates in a row were not finite than the trainer puts up with
inline void expect_progress(step_report const& report, i64 max_skipped) {
  if (report.skipped_in_a_row > max_skipped)
    throw error({"optimizer", "step", 0, report.culprit_rank, std::string(report.culprit),
                 text("gradients were not finite in ", report.skipped_in_a_row,
                      " updates in a row; parameters and state are those of the last good one")});
}

}  // namespace detail

}  // namespace limber

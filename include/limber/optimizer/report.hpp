// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a call of step() did.

#include <limber/core/config.hpp>

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
  bool overflowed = false;  ///< every rank's gradient was finite; their sum left the range of the wire's type
  i64 skipped_in_a_row = 0;
  double host_seconds = 0;      ///< from the end of the call before to this one, without mark_ready
  double marking_seconds = 0;   ///< inside mark_ready, before the call
  double exchange_seconds = 0;  ///< inside the call: what backward did not hide
};

}  // namespace limber

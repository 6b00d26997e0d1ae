// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What survivors have agreed on after a worker has died.

#include <limber/core/config.hpp>

#include <vector>

namespace limber {

/// What a recovery kept, the same on every rank.
struct recovery {
  int giver = 0;   ///< the rank whose copy of state is valid
  i64 voided = 0;  ///< its last calls of step(), so many, went into no update: nobody's samples of them count
  /// Ranks that took the giver's state instead of their own: newcomers, and who was behind. What they had
  /// learnt since the last merge of models is lost.
  std::vector<int> joined;
};

}  // namespace limber

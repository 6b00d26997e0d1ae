// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What each round of an asynchronous run held: enough to run it again.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>

#include <cstddef>
#include <vector>

namespace limber::sync {

/// One rank's part in one round.
struct round_entry {
  i64 round = 0;
  int rank = 0;
  i64 calls = 0;      ///< of step(), also those without samples
  i64 samples = 0;    ///< nᵢ
  bool last = false;  ///< closed by finish()

  bool operator==(round_entry const&) const = default;
};

/// Rounds in the order in which they closed; of one rank, or of all ranks after one another.
using round_log = std::vector<round_entry>;

/// Where the log tells of `rank` in `round`, looked for from entry `from` on.
/// @throws std::invalid_argument if it does not
[[nodiscard]] inline std::size_t find_round(round_log const& log, i64 round, int rank, std::size_t from = 0) {
  while (from < log.size() && (log[from].round != round || log[from].rank != rank)) ++from;
  expects(from < log.size(), "replay: the log has no round ", round, " of rank ", rank);
  return from;
}

}  // namespace limber::sync

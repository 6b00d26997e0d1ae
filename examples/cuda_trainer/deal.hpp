// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Virtual workers on however many processes there are.

#include <limber/core/config.hpp>

#include <cstddef>
#include <vector>

namespace example {

/// Samples of an update for each process, when `workers` virtual workers of `each` samples are dealt to
/// `ranks` processes; the first get the odd ones. The sum does not depend on `ranks`, and so neither do
/// batch, rate and order of samples.
[[nodiscard]] inline std::vector<limber::i64> shares(int workers, limber::i64 each, int ranks) {
  std::vector<limber::i64> out;
  for (int r = 0; r < ranks; ++r) out.push_back(each * (workers / ranks + (r < workers % ranks ? 1 : 0)));
  return out;
}

}  // namespace example

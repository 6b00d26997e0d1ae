// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Finds the newest complete checkpoint.

#include <limber/state/folder.hpp>
#include <limber/state/manifest.hpp>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace limber::state {

/// A checkpoint that can be loaded; false if there is none.
struct found {
  std::filesystem::path path;
  manifest contents;
  bool verified = false;            ///< the hashes of all tensors were compared
  std::vector<rejection> rejected;  ///< newer ones that are damaged, newest first

  [[nodiscard]] explicit operator bool() const noexcept { return !path.empty(); }
  [[nodiscard]] i64 generation() const noexcept { return contents.generation; }
  [[nodiscard]] i64 step() const noexcept { return contents.step; }
  [[nodiscard]] int world() const noexcept { return static_cast<int>(contents.workers.size()); }
};

/// How much of a checkpoint is read and checked.
enum class check_of {
  headers,  ///< sizes, headers and their hashes; `load` compares the hashes of what it loads
  bytes,    ///< everything
};

/// Opens the given checkpoint; other ones in the folder are not read.
/// @throws limber::error naming the file and the tensor that differ from what was saved
[[nodiscard]] inline found open(std::filesystem::path const& folder, i64 generation, i64 step,
                                check_of how_much = check_of::headers) {
  instant const at{generation, step};
  auto const path = folder / name_of(at);
  return {path, detail::check_whole(path, at, how_much == check_of::bytes), how_much == check_of::bytes, {}};
}

/// The newest complete checkpoint in `folder`, by generation, then step; and the newer ones that are damaged,
/// with reasons.
///
/// A folder that does not exist has none. With many ranks, one calls this and sends generation and step to
/// the others, which `open` it; or all call it before any saves again.
/// Cost     reads the checkpoint (all of it for `bytes`); then older ones, while they are damaged.
/// @throws limber::error if the folder cannot be listed
[[nodiscard]] inline found latest(std::filesystem::path const& folder, check_of how_much = check_of::bytes) {
  std::vector<rejection> rejected;
  for (instant const at : detail::instants_in(folder)) {
    try {
      found out = open(folder, at.generation, at.step, how_much);
      out.rejected = std::move(rejected);
      return out;
    } catch (error const& e) { rejected.push_back({folder / name_of(at), e.what()}); }
  }
  return {{}, {}, false, std::move(rejected)};
}

}  // namespace limber::state

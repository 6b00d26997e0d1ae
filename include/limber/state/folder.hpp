// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Checkpoints as folders: their names, which there are, how one appears at once and old ones go.

#include <limber/state/file.hpp>
#include <limber/state/manifest.hpp>

#include <algorithm>
#include <compare>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace limber::state {

/// The age of a checkpoint: the later generation is newer; within one, the later step.
struct instant {
  i64 generation = 0;
  i64 step = 0;

  friend auto operator<=>(instant const&, instant const&) = default;
};

/// A checkpoint that was passed over, or could not be removed.
struct rejection {
  std::filesystem::path path;
  std::string reason;
};

[[nodiscard]] inline std::string name_of(instant m) {
  return std::to_string(m.generation) + "-" + std::to_string(m.step);
}

namespace detail {

inline constexpr std::string_view unfinished = ".partial";

/// The reverse of `name_of`; nothing for any other name.
[[nodiscard]] inline std::optional<instant> read_instant(std::string_view name) {
  auto const dash = name.find('-');
  if (dash == name.npos) return {};
  auto const generation = read_count(name.substr(0, dash)), step = read_count(name.substr(dash + 1));
  if (!generation || !step) return {};
  return instant{*generation, *step};
}

/// The checkpoints in a folder by their names, newest first. A folder that is not there has none.
/// @param suffix  lists the unfinished ones instead
[[nodiscard]] inline std::vector<instant> instants_in(std::filesystem::path const& folder,
                                                      std::string_view suffix = {}) {
  std::vector<instant> out;
  std::error_code e;
  std::filesystem::directory_iterator entries(folder, e);
  if (e == std::errc::no_such_file_or_directory) return out;
  for (; !e && entries != std::filesystem::directory_iterator(); entries.increment(e)) {
    std::string const name = entries->path().filename().string();
    if (!name.ends_with(suffix)) continue;
    if (auto const m = read_instant(std::string_view(name).substr(0, name.size() - suffix.size())))
      out.push_back(*m);
  }
  if (e) refused("list", folder.string(), e.value());
  std::ranges::sort(out, std::greater{});
  return out;
}

[[nodiscard]] inline std::filesystem::path unfinished_path(std::filesystem::path const& folder, instant m) {
  return folder / (name_of(m) + std::string(unfinished));
}

/// Reads the manifest of the checkpoint in `folder`, and that it is of instant `m`.
[[nodiscard]] inline manifest read_manifest(std::filesystem::path const& folder, instant m) {
  std::string const path = (folder / manifest_name).string();
  file const f = file::open(path);
  if (f.size() > max_header_bytes)
    corrupt(path, {}, text("has ", f.size(), " bytes, more than a manifest has"));
  std::string json(static_cast<std::size_t>(f.size()), '\0');
  f.read(0, std::as_writable_bytes(std::span(json)));
  manifest const out = parse_manifest(json, path);
  if (instant{out.generation, out.step} != m)
    corrupt(path, {},
            text("is of checkpoint ", name_of(instant{out.generation, out.step}),
                 ", not of this one: the folder was renamed or copied"));
  return out;
}

/// Opens a file of a checkpoint as the manifest knows it. @param rank  −1: the model
[[nodiscard]] inline tensor_file open_sealed(std::filesystem::path const& folder, manifest const& m,
                                             int rank) {
  file_seal const seal = rank < 0 ? m.model : m.workers[static_cast<std::size_t>(rank)];
  tensor_file f =
      tensor_file::open((folder / (rank < 0 ? std::string(model_name) : worker_name(rank))).string());
  expect_stamp(f, {m.generation, m.step, std::max(rank, 0), static_cast<int>(m.workers.size())},
               rank < 0 ? "model" : "worker");
  if (f.size() != seal.bytes)
    corrupt(f.path(), {}, text("has ", f.size(), " bytes, not the ", seal.bytes, " that were saved"));
  if (f.header_hash() != seal.header_hash)
    corrupt(f.path(), {}, "its header is not the one that was saved: its hash differs");
  expect_sealed(f);
  return f;
}

/// Throws unless every file is there, with the size and the header that were saved.
/// @param data  read all tensors and compare their hashes, too
inline manifest check_whole(std::filesystem::path const& folder, instant m, bool data) {
  manifest out = read_manifest(folder, m);
  for (int rank = -1; rank < static_cast<int>(out.workers.size()); ++rank) {
    tensor_file const f = open_sealed(folder, out, rank);
    if (data) f.verify();
  }
  return out;
}

/// Lets a finished folder appear under its name, in one step where the system can exchange two names.
inline void publish(std::filesystem::path const& from, std::filesystem::path const& to,
                    disk_hook const& hook) {
  ask(hook, "rename", to.string());
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR) refused("rename", to.string(), errno);
    // Saved before, by a run that was taken up from an older checkpoint: the new one takes its place.
#if defined(RENAME_EXCHANGE)
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) refused("rename", to.string(), errno);
#endif
  remove_folder(to, hook);
  if (::rename(from.c_str(), to.c_str()) != 0) refused("rename", to.string(), errno);
}

/// Removes checkpoints that are older than the `keep` newest up to `newest`. What is newer than that, left
/// by a run that was given up, stays; what is damaged does not count as kept.
inline void remove_old(std::filesystem::path const& folder, instant newest, int keep, disk_hook const& hook) {
  int kept = 1;
  for (instant const m : instants_in(folder)) {
    if (m >= newest) continue;
    if (kept >= keep) {
      remove_folder(folder / name_of(m), hook);
      continue;
    }
    try {
      (void)check_whole(folder / name_of(m), m, false);
      ++kept;
    } catch (error const&) {  // `latest` says why, should it come to that
    }
  }
}

/// Removes what saves up to instant `m` have left unfinished.
inline void remove_unfinished(std::filesystem::path const& folder, instant m, disk_hook const& hook) {
  for (instant const old : instants_in(folder, unfinished))
    if (old <= m) remove_folder(unfinished_path(folder, old), hook);
}

}  // namespace detail
}  // namespace limber::state

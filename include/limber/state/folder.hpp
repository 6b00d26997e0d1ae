// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Checkpoint folders: names, listing, the newest complete one, atomic publication, removal of old ones.

#include <limber/state/file.hpp>
#include <limber/state/manifest.hpp>

#include <algorithm>
#include <compare>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::state {

/// The age of a checkpoint: ordered by generation, then by step.
struct instant {
  i64 generation = 0;
  i64 step = 0;

  friend auto operator<=>(instant const&, instant const&) = default;
};

/// A checkpoint that is damaged, or could not be removed.
struct rejection {
  std::filesystem::path path;
  std::string reason;
};

[[nodiscard]] inline std::string name_of(instant m) {
  return std::to_string(m.generation) + "-" + std::to_string(m.step);
}

namespace detail {

inline constexpr std::string_view unfinished = ".partial";

/// The inverse of `name_of`; empty for any other name.
[[nodiscard]] inline std::optional<instant> read_instant(std::string_view name) {
  auto const dash = name.find('-');
  if (dash == name.npos) return {};
  auto const generation = read_count(name.substr(0, dash)), step = read_count(name.substr(dash + 1));
  if (!generation || !step) return {};
  return instant{*generation, *step};
}

/// The checkpoints in a folder by their names, newest first; none if the folder does not exist.
/// @param suffix  of unfinished ones, to list these instead
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
  if (e) throw_system_error("list", folder.string(), e.value());
  std::ranges::sort(out, std::greater{});
  return out;
}

[[nodiscard]] inline std::filesystem::path unfinished_path(std::filesystem::path const& folder, instant m) {
  return folder / (name_of(m) + std::string(unfinished));
}

/// Reads the manifest of the checkpoint in `folder`, and checks that it belongs to instant `m`.
[[nodiscard]] inline manifest read_manifest(std::filesystem::path const& folder, instant m) {
  std::string const path = (folder / manifest_name).string();
  file const f = file::open(path);
  if (f.size() > max_header_bytes)
    throw_corrupt(path, {}, text("has ", f.size(), " bytes, more than a manifest has"));
  std::string json(static_cast<std::size_t>(f.size()), '\0');
  f.read(0, std::as_writable_bytes(std::span(json)));
  manifest const out = parse_manifest(json, path);
  if (instant{out.generation, out.step} != m)
    throw_corrupt(path, {},
                  text("is of checkpoint ", name_of(instant{out.generation, out.step}),
                       ", not of this one: the folder was renamed or copied"));
  return out;
}

/// Opens a file of a checkpoint and compares it with the manifest. @param rank −1: the model
[[nodiscard]] inline tensor_file open_checked(std::filesystem::path const& folder, manifest const& m,
                                              int rank) {
  file_digest const digest = rank < 0 ? m.model : m.workers[static_cast<std::size_t>(rank)];
  tensor_file f =
      tensor_file::open((folder / (rank < 0 ? std::string(model_name) : worker_name(rank))).string());
  expect_id(f, {m.generation, m.step, std::max(rank, 0), static_cast<int>(m.workers.size())},
            rank < 0 ? "model" : "worker");
  if (f.size() != digest.bytes)
    throw_corrupt(f.path(), {}, text("has ", f.size(), " bytes, not the ", digest.bytes, " that were saved"));
  if (f.header_hash() != digest.header_hash)
    throw_corrupt(f.path(), {}, "its header is not the one that was saved: its hash differs");
  expect_hashes(f);
  return f;
}

/// Throws unless every file exists with the saved size and header.
/// @param data  also reads all tensors and compares their hashes
inline manifest check_whole(std::filesystem::path const& folder, instant m, bool data) {
  manifest out = read_manifest(folder, m);
  for (int rank = -1; rank < static_cast<int>(out.workers.size()); ++rank) {
    tensor_file const f = open_checked(folder, out, rank);
    if (data) f.verify();
  }
  return out;
}

/// Renames a finished folder to its final name, atomically where the system can exchange two names.
inline void publish(std::filesystem::path const& from, std::filesystem::path const& to,
                    disk_hook const& hook) {
  check_hook(hook, "rename", to.string());
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
    throw_system_error("rename", to.string(), errno);
    // A run that was resumed from an older checkpoint saved this name before: it is replaced.
#if defined(RENAME_EXCHANGE)
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) throw_system_error("rename", to.string(), errno);
#endif
  remove_folder(to, hook);
  if (::rename(from.c_str(), to.c_str()) != 0) throw_system_error("rename", to.string(), errno);
}

/// Removes checkpoints that are older than the `keep` newest ones up to `newest`. Newer ones, of an abandoned
/// run, stay; damaged ones do not count as kept.
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
    } catch (error const&) {  // `latest` reports the reason
    }
  }
}

/// Removes the unfinished folders of saves up to instant `m`.
inline void remove_unfinished(std::filesystem::path const& folder, instant m, disk_hook const& hook) {
  for (instant const old : instants_in(folder, unfinished))
    if (old <= m) remove_folder(unfinished_path(folder, old), hook);
}

}  // namespace detail

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

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The manifest of a checkpoint: its files, with the length and header hash of each.

#include <limber/state/checkpoint_id.hpp>

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::state {

/// Size and header hash of a file. The header holds a hash of every tensor, so both cover every byte.
struct file_digest {
  i64 bytes = 0;
  std::uint64_t header_hash = 0;

  friend bool operator==(file_digest const&, file_digest const&) = default;
};

/// The contents of the manifest, which is written last.
struct manifest {
  i64 generation = 0;
  i64 step = 0;
  std::string version;  ///< of the Limber that wrote it
  file_digest model;
  std::vector<file_digest> workers;  ///< one for each rank
};

inline constexpr std::string_view manifest_name = "manifest.json";
inline constexpr std::string_view model_name = "model.safetensors";
[[nodiscard]] inline std::string worker_name(i64 rank) {
  return "worker-" + std::to_string(rank) + ".safetensors";
}

namespace detail {

[[nodiscard]] inline std::string print(manifest const& m) {
  auto digest = [](file_digest const& s) {
    return std::to_string(s.bytes) + " " + print_hash(s.header_hash);
  };
  std::string out = "{\n";
  auto line = [&](std::string_view key, std::string const& value) {
    out += json_string(key) + ": " + json_string(value) + ",\n";
  };
  line("limber checkpoint", std::string(form));
  line("version", m.version);
  line("generation", std::to_string(m.generation));
  line("step", std::to_string(m.step));
  line("world", std::to_string(m.workers.size()));
  line(model_name, digest(m.model));
  for (std::size_t r = 0; r < m.workers.size(); ++r)
    line(worker_name(static_cast<i64>(r)), digest(m.workers[r]));
  return out + "\"hash\": \"" + print_hash(hash_of(out)) + "\"\n}\n";
}

/// Parses a manifest. It must equal the output of `print` byte for byte, so all of it is checked.
/// @throws limber::error naming the path
[[nodiscard]] inline manifest parse_manifest(std::string_view json, std::string const& path) {
  string_map const said = parse_strings(json, path);
  auto value = [&](std::string const& key) -> std::string const& {
    auto const at = said.find(key);
    if (at == said.end()) throw_corrupt(path, {}, text("does not say '", key, "'"));
    return at->second;
  };
  auto count = [&](std::string const& key) {
    auto const x = read_count(value(key));
    if (!x) throw_corrupt(path, {}, text("'", key, "' is not a count, but '", printable(value(key)), "'"));
    return *x;
  };
  auto digest = [&](std::string const& key) {
    std::string_view const s = value(key);
    auto const blank = s.find(' ');
    auto const bytes = read_count(s.substr(0, blank));
    auto const hash = read_hash(blank == s.npos ? std::string_view() : s.substr(blank + 1));
    if (!bytes || !hash)
      throw_corrupt(path, {}, text("'", key, "' is not a size and a hash, but '", printable(s), "'"));
    return file_digest{*bytes, *hash};
  };
  if (value("limber checkpoint") != form)
    throw_corrupt(path, {},
                  text("is written in form '", printable(value("limber checkpoint")),
                       "'; this version reads '", form, "'"));
  manifest m{count("generation"), count("step"), value("version"), digest(std::string(model_name)), {}};
  i64 const world = count("world");
  // Each worker needs a line of its own, so a forged number cannot allocate memory.
  if (world < 1 || world > static_cast<i64>(said.size()) || world > std::numeric_limits<int>::max())
    throw_corrupt(path, {}, text("cannot be of ", world, " workers"));
  for (i64 r = 0; r < world; ++r) m.workers.push_back(digest(worker_name(r)));
  if (print(m) != json) throw_corrupt(path, {}, "is not what was saved: its hash, or its form, differs");
  return m;
}

}  // namespace detail
}  // namespace limber::state

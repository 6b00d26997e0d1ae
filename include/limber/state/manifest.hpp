// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The identity of a checkpoint and its files: in the metadata of each, and in the manifest that lists them.

#include <limber/core/math.hpp>
#include <limber/core/version.hpp>
#include <limber/state/tensor_file.hpp>

#include <array>
#include <charconv>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace limber::state {

/// Identifies a checkpoint, and the worker that writes a part of it.
struct checkpoint_id {
  i64 generation = 0;  ///< of an elastic run; a later generation is newer, whatever its step
  i64 step = 0;        ///< for example calls of step(); orders checkpoints of one generation
  int rank = 0;
  int world = 1;
  double weight = 1;  ///< of this worker's per_rank pieces in a mean over workers
};

/// The format version of the files; others are refused.
inline constexpr std::string_view form = "1";

namespace detail {

[[nodiscard]] inline std::string version_text() {
  return std::to_string(LIMBER_VERSION_MAJOR) + "." + std::to_string(LIMBER_VERSION_MINOR) + "." +
         std::to_string(LIMBER_VERSION_PATCH);
}

inline void check(checkpoint_id const& s) {
  expects(s.generation >= 0, "save: the generation must be at least 0, got ", s.generation);
  expects(s.step >= 0, "save: the step must be at least 0, got ", s.step);
  expects(s.world >= 1, "save: the world must have at least 1 worker, got ", s.world);
  expects(s.rank >= 0 && s.rank < s.world, "save: the rank must lie in [0, ", s.world, "), got ", s.rank);
  expects(s.weight >= 0 && math::finite(s.weight), "save: the weight must be a number of at least 0, got ",
          s.weight);
}

/// @param role  "model", or "worker"
[[nodiscard]] inline string_map metadata_of(checkpoint_id const& s, std::string_view role) {
  std::array<char, 32> digits{};
  auto const end = std::to_chars(digits.data(), digits.data() + digits.size(), s.weight).ptr;
  return {{"limber.form", std::string(form)}, {"limber.version", version_text()},
          {"limber.role", std::string(role)}, {"generation", std::to_string(s.generation)},
          {"step", std::to_string(s.step)},   {"rank", std::to_string(s.rank)},
          {"world", std::to_string(s.world)}, {"weight", std::string(digits.data(), end)}};
}

/// Checks that the file was written for `s`: same role, generation, step, world and rank.
/// @throws limber::error naming the path and what differs
inline void expect_id(tensor_file const& f, checkpoint_id const& s, std::string_view role) {
  for (auto const& [key, value] : metadata_of(s, role)) {
    if (key == "weight" || key == "limber.version") continue;
    std::string const* const said = f.metadata(key);
    if (said == nullptr)
      throw_corrupt(f.path(), {}, text("does not say its ", key, ": not a file of a checkpoint"));
    if (*said != value)
      throw_corrupt(f.path(), {},
                    text("is of another checkpoint or worker: its ", key, " is '", printable(*said),
                         "', not '", value, "'"));
  }
}

/// Checks that every tensor has its kind and hash in the metadata.
inline void expect_hashes(tensor_file const& f) {
  for (auto const& t : f.tensors())
    if (!f.how(t)) throw_corrupt(f.path(), t.name, "has no hash: not a file of a checkpoint");
}

/// The weight of the worker that wrote the file.
[[nodiscard]] inline double weight_of(tensor_file const& f) {
  std::string const* const s = f.metadata("weight");
  double x = -1;
  if (s != nullptr) {
    auto const [end, wrong] = std::from_chars(s->data(), s->data() + s->size(), x);
    if (wrong != std::errc{} || end != s->data() + s->size()) x = -1;
  }
  if (!(x >= 0 && math::finite(x))) throw_corrupt(f.path(), {}, "has no weight of at least 0");
  return x;
}

}  // namespace detail

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
  string_map const said = read_json(json, path, true).metadata;
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

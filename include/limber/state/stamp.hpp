// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// When and by whom a checkpoint was written, and the same as the metadata of its files.

#include <limber/core/math.hpp>
#include <limber/core/version.hpp>
#include <limber/state/tensor_file.hpp>

#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

namespace limber::state {

/// When a checkpoint is written, and by which of how many workers.
struct stamp {
  i64 generation = 0;  ///< of an elastic run; later ones are newer whatever their step
  i64 step = 0;        ///< calls of step(), say; decides within a generation
  int rank = 0;
  int world = 1;
  double weight = 1;  ///< of this worker's `apart` pieces where the mean of all is taken
};

/// The form that files of this version are written in; others are refused.
inline constexpr std::string_view form = "1";

namespace detail {

/// A number of at least 0 exactly as `std::to_string` writes it.
[[nodiscard]] inline std::optional<i64> read_count(std::string_view s) noexcept {
  i64 x = 0;
  auto const [end, wrong] = std::from_chars(s.data(), s.data() + s.size(), x);
  if (wrong != std::errc{} || end != s.data() + s.size() || x < 0 || (s.size() > 1 && s[0] == '0')) return {};
  return s[0] == '-' ? std::nullopt : std::optional(x);
}

[[nodiscard]] inline std::string version_text() {
  return std::to_string(LIMBER_VERSION_MAJOR) + "." + std::to_string(LIMBER_VERSION_MINOR) + "." +
         std::to_string(LIMBER_VERSION_PATCH);
}

inline void check(stamp const& s) {
  expects(s.generation >= 0, "save: the generation must be at least 0, got ", s.generation);
  expects(s.step >= 0, "save: the step must be at least 0, got ", s.step);
  expects(s.world >= 1, "save: the world must have at least 1 worker, got ", s.world);
  expects(s.rank >= 0 && s.rank < s.world, "save: the rank must lie in [0, ", s.world, "), got ", s.rank);
  expects(s.weight >= 0 && math::finite(s.weight), "save: the weight must be a number of at least 0, got ",
          s.weight);
}

/// @param role  "model", or "worker"
[[nodiscard]] inline string_map metadata_of(stamp const& s, std::string_view role) {
  std::array<char, 32> digits{};
  auto const end = std::to_chars(digits.data(), digits.data() + digits.size(), s.weight).ptr;
  return {{"limber.form", std::string(form)}, {"limber.version", version_text()},
          {"limber.role", std::string(role)}, {"generation", std::to_string(s.generation)},
          {"step", std::to_string(s.step)},   {"rank", std::to_string(s.rank)},
          {"world", std::to_string(s.world)}, {"weight", std::string(digits.data(), end)}};
}

/// The file must have been written for `s`: same role, generation, step, world and rank.
/// @throws limber::error naming the path and what differs
inline void expect_stamp(tensor_file const& f, stamp const& s, std::string_view role) {
  for (auto const& [key, value] : metadata_of(s, role)) {
    if (key == "weight" || key == "limber.version") continue;
    std::string const* const said = f.metadata(key);
    if (said == nullptr)
      corrupt(f.path(), {}, text("does not say its ", key, ": not a file of a checkpoint"));
    if (*said != value)
      corrupt(f.path(), {},
              text("is of another checkpoint or worker: its ", key, " is '", shown(*said), "', not '", value,
                   "'"));
  }
}

/// Every tensor says how it was kept and what its hash is.
inline void expect_sealed(tensor_file const& f) {
  for (auto const& t : f.tensors())
    if (!f.how(t)) corrupt(f.path(), t.name, "has no hash: not a file of a checkpoint");
}

/// The weight of the worker that wrote the file.
[[nodiscard]] inline double weight_of(tensor_file const& f) {
  std::string const* const s = f.metadata("weight");
  double x = -1;
  if (s != nullptr) {
    auto const [end, wrong] = std::from_chars(s->data(), s->data() + s->size(), x);
    if (wrong != std::errc{} || end != s->data() + s->size()) x = -1;
  }
  if (!(x >= 0 && math::finite(x))) corrupt(f.path(), {}, "has no weight of at least 0");
  return x;
}

}  // namespace detail
}  // namespace limber::state

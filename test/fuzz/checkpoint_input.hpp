// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Runs the checkpoint parsers on arbitrary bytes: the entry point of the fuzzer and of the test that replays
/// its corpus.

#include <limber/state/state.hpp>

#include <state/fake_worker.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

namespace limber::testing {

/// Whether an input was accepted.
enum class parse_result { refused, accepted };

namespace detail {

using bytes = std::span<std::byte const>;

/// The first `n` bytes, or as many as there are.
[[nodiscard]] inline bytes take(bytes& from, std::size_t n) {
  n = std::min(n, from.size());
  bytes const out = from.first(n);
  from = from.subspan(n);
  return out;
}
[[nodiscard]] inline std::size_t take_number(bytes& from) {
  std::size_t out = 0;
  for (std::byte const b : take(from, 2)) out = out * 256 + std::to_integer<std::size_t>(b);
  return out;
}
[[nodiscard]] inline std::string as_text(bytes b) {
  return {reinterpret_cast<char const*>(b.data()), b.size()};
}

[[nodiscard]] inline fake_worker target() {
  fake_worker w = small_worker(1, 0, 5);
  w.add("open", kept::round, dtype::f64, 3);
  w.add("error", kept::partial, dtype::bf16, 3);
  w.fill(1, 0);
  return w;
}

// Three files and load options, decoded from the input.
struct three_files {
  state::load_options options;
  bytes model, first, second;

  explicit three_files(bytes in) {
    auto const how = take_number(in);
    options.world = 1 + static_cast<int>(how % 4);
    options.rank = static_cast<int>(how / 4) % options.world;
    if ((how & 64u) != 0) options.rename = {{"*/x", "*/w"}};
    if ((how & 128u) != 0) options.allow_missing = options.ignore = {"*"};
    auto const a = take_number(in), b = take_number(in);
    model = take(in, a);
    first = take(in, b);
    second = in;
  }
};

inline void read_file(bytes in) {
  auto const f = state::tensor_file::view(in, "a file");
  f.verify();
}

inline void load_from_memory(bytes in) {
  three_files const files(in);
  auto open = [&](int rank) {
    return state::tensor_file::view(rank < 0    ? files.model
                                    : rank == 0 ? files.first
                                                : files.second,
                                    "a file");
  };
  auto w = target();
  (void)state::detail::loading(open, 2, files.options, false).run(w);
}

// On disk, with a manifest that matches the files, as a forger could write it.
inline void load_from_folder(bytes in) {
  static scratch const dir;
  three_files const files(in);
  state::manifest m{0, 1, "", {}, std::vector<state::file_digest>(2)};
  auto put = [&](std::string const& name, bytes content, state::file_digest& digest) {
    write_text(dir.path / "0-1" / name, as_text(content));
    std::uint64_t n = 0;
    if (content.size() >= 8) std::memcpy(&n, content.data(), 8);
    digest = {static_cast<i64>(content.size()),
              state::hash_of(content.first(content.size() < 8 || n > content.size() - 8 ? 0 : 8 + n))};
  };
  fs::create_directories(dir.path / "0-1");
  put(std::string(state::model_name), files.model, m.model);
  put(state::worker_name(0), files.first, m.workers[0]);
  put(state::worker_name(1), files.second, m.workers[1]);
  write_text(dir.path / "0-1" / state::manifest_name, state::detail::print(m));
  auto w = target();
  auto const found = state::latest(dir.path);
  load(w, found, files.options);
}

}  // namespace detail

/// The first byte selects the parser of the rest. Aborts on any exception but those of the library.
inline parse_result try_checkpoint(std::span<std::byte const> in) {
  if (in.empty()) return parse_result::refused;
  auto const rest = in.subspan(1);
  try {
    switch (std::to_integer<int>(in[0]) % 4) {
      case 0: detail::read_file(rest); break;
      case 1: (void)state::detail::parse_manifest(detail::as_text(rest), "a manifest"); break;
      case 2: detail::load_from_memory(rest); break;
      case 3: detail::load_from_folder(rest); break;
    }
    return parse_result::accepted;
  } catch (error const& e) {
    if (e.where().engine == "state") return parse_result::refused;
    std::fprintf(stderr, "an error of another engine: %s\n", e.what());
  } catch (std::invalid_argument const& e) {
    if (std::string(e.what()).starts_with("limber: ")) return parse_result::refused;
    std::fprintf(stderr, "not our own: %s\n", e.what());
  } catch (std::exception const& e) { std::fprintf(stderr, "%s: %s\n", typeid(e).name(), e.what()); }
  std::abort();
}

/// Inputs that are accepted: a file, a manifest, a checkpoint in memory and on disk, by 1, 2 and 3 workers.
[[nodiscard]] inline std::vector<std::vector<std::byte>> good_inputs() {
  std::vector<fake_worker> workers{detail::target(), detail::target()};
  workers[1].fill(1, 1);
  std::vector<std::vector<std::byte>> const packed{state::pack(workers[1], {0, 1, 1, 2})};
  scratch dir;
  save_gathered(workers[0], dir.path, {0, 1, 0, 2}, packed);
  auto file = [&](std::string const& name) { return read_text(dir.path / "0-1" / name); };
  auto number = [](std::size_t n) {
    return std::string{static_cast<char>(n / 256), static_cast<char>(n % 256)};
  };
  std::string const model = file(std::string(state::model_name)), first = file(state::worker_name(0)),
                    second = file(state::worker_name(1));
  std::vector<std::string> texts{std::string(1, '\0') + model,
                                 std::string(1, '\1') + file(std::string(state::manifest_name))};
  for (char const mode : {'\2', '\3'})
    for (std::size_t const how : {0u, 1u, 2u, 5u, 197u})
      texts.push_back(mode + number(how) + number(model.size()) + number(first.size()) + model + first +
                      second);
  std::vector<std::vector<std::byte>> out;
  for (auto const& t : texts) {
    auto const b = std::as_bytes(std::span(t));
    out.emplace_back(b.begin(), b.end());
  }
  return out;
}

}  // namespace limber::testing

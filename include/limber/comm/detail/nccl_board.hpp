// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How ranks find each other before there is a communicator, and hear of its end: short notes.

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <ios>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <system_error>
#include <utility>

namespace limber::nccl {

/// Short notes that all ranks of one start of a job can read and write. Any store with a put-if-absent
/// serves; `bootstrap_file` makes one of a shared directory. TCP is not among them: bring your own.
///
///     put(name, text)   false if there is a note of that name already; never half written
///     get(name)         the note, if there is one
///     remove(name)      none is no error
///
/// Names consist of letters, digits, "." and "-".
struct board {
  std::function<bool(std::string const& name, std::string const& text)> put{};
  std::function<std::optional<std::string>(std::string const& name)> get{};
  std::function<void(std::string const& name)> remove{};
  std::string where{};  ///< for messages

  [[nodiscard]] explicit operator bool() const noexcept { return put && get && remove; }
};

/// Notes in a store that serves more than one communicator, such as an elastic run's.
///
///     nccl::communicator comm(facts, nccl::board_in(store, roster.prefix), options);
///
/// @param store   has put_if_absent(key, value), get(key) and remove(key), and outlives the board
/// @param prefix  that no other communicator uses: notes are the keys "nccl/<prefix>/<name>"
template <class Store>
[[nodiscard]] board board_in(Store& store, std::string const& prefix) {
  auto const key = [prefix](std::string const& name) { return text("nccl/", prefix, "/", name); };
  board made;
  made.put = [&store, key](std::string const& name, std::string const& note) {
    return store.put_if_absent(key(name), note);
  };
  made.get = [&store, key](std::string const& name) -> std::optional<std::string> {
    return store.get(key(name));
  };
  made.remove = [&store, key](std::string const& name) { (void)store.remove(key(name)); };
  made.where = text("the keys nccl/", prefix, "/* of the store");
  return made;
}

namespace detail {

/// A name that no other writer of the directory uses.
[[nodiscard]] inline std::string draft_name(std::string const& note) {
  static std::atomic<unsigned> count{0};
  static unsigned const own = std::random_device{}();
  return text(note, ".", own, "-", ++count, ".draft");
}

[[nodiscard]] inline error board_error(std::string const& what, std::filesystem::path const& file,
                                       std::error_code code) {
  return error(
      {"nccl", "bootstrap", code.value(), -1, {}, text(what, " '", file.string(), "': ", code.message())});
}

inline bool put_file(std::filesystem::path const& file, std::string const& note) {
  namespace fs = std::filesystem;
  fs::path const draft = file.parent_path() / draft_name(file.filename().string());
  {
    std::ofstream out(draft, std::ios::binary);
    out << note;
    out.close();
    if (!out) throw board_error("cannot write", draft, std::make_error_code(std::errc::io_error));
  }
  std::error_code failed, ignored;
  fs::create_hard_link(draft, file, failed);
  // Over NFS a link that succeeded may be reported as failed: the count of links tells.
  bool const there = !failed || fs::hard_link_count(draft, ignored) == 2;
  fs::remove(draft, ignored);
  if (there) return true;
  if (failed == std::errc::file_exists) return false;
  throw board_error("the directory needs hard links, and has none for", file, failed);
}

}  // namespace detail

/// The notes of job `job` as files `limber.<job>.<name>` in `directory`, which all ranks must share.
/// A note appears by link(2): at once and whole, and only if there is none of its name.
///
/// @param job  different for every start (launch_facts::job); notes that a crashed start left behind
///             under the same name are reported as such, never used
/// @throws std::invalid_argument if `directory` is none, or `job` is empty
[[nodiscard]] inline board bootstrap_file(std::filesystem::path const& directory, std::string const& job) {
  namespace fs = std::filesystem;
  expects(!job.empty(), "nccl: bootstrap_file: the job has no name; give one that differs for every start");
  std::error_code ignored;
  expects(fs::is_directory(directory, ignored), "nccl: bootstrap_file: '", directory.string(),
          "' is not a directory");
  std::string clean = job;
  for (char& c : clean)
    if (c == '/' || c == '\0') c = '_';
  auto const path_of = [directory, clean](std::string const& name) {
    return directory / text("limber.", clean, ".", name);
  };
  board made;
  made.put = [path_of](std::string const& name, std::string const& note) {
    return detail::put_file(path_of(name), note);
  };
  made.get = [path_of](std::string const& name) -> std::optional<std::string> {
    std::ifstream in(path_of(name), std::ios::binary);
    if (!in) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  };
  made.remove = [path_of](std::string const& name) {
    std::error_code absent;
    fs::remove(path_of(name), absent);
  };
  made.where = text(directory.string(), "/limber.", clean, ".*");
  return made;
}

}  // namespace limber::nccl

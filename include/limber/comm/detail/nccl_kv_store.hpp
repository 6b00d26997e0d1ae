// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The key-value store through which ranks exchange the id of a communicator, and failures.

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

/// A key-value store that all ranks of one start of a job share. Any store with put-if-absent serves;
/// `bootstrap_file` makes one from a shared directory. There is none over TCP: bring your own.
///
///     put(name, text)   false if the key exists already; a value is never visible in part
///     get(name)         the value, if there is one
///     remove(name)      no error if the key does not exist
///
/// Names consist of letters, digits, "." and "-".
struct kv_store {
  std::function<bool(std::string const& name, std::string const& text)> put{};
  std::function<std::optional<std::string>(std::string const& name)> get{};
  std::function<void(std::string const& name)> remove{};
  std::string where{};  ///< its location, for error messages

  [[nodiscard]] explicit operator bool() const noexcept { return put && get && remove; }
};

/// A kv_store in a store that serves several communicators, such as that of an elastic run.
///
///     nccl::communicator comm(facts, nccl::kv_store_in(store, view.prefix), options);
///
/// @param store  has put_if_absent(key, value), get(key) and remove(key), and outlives the result
/// @param prefix  unique to the communicator: keys are "nccl/<prefix>/<name>"
template <class Store>
[[nodiscard]] kv_store kv_store_in(Store& store, std::string const& prefix) {
  auto const key = [prefix](std::string const& name) { return text("nccl/", prefix, "/", name); };
  kv_store made;
  made.put = [&store, key](std::string const& name, std::string const& value) {
    return store.put_if_absent(key(name), value);
  };
  made.get = [&store, key](std::string const& name) -> std::optional<std::string> {
    return store.get(key(name));
  };
  made.remove = [&store, key](std::string const& name) { (void)store.remove(key(name)); };
  made.where = text("the keys nccl/", prefix, "/* of the store");
  return made;
}

namespace detail {

/// A file name that is unique among the writers of the directory.
[[nodiscard]] inline std::string draft_name(std::string const& value) {
  static std::atomic<unsigned> count{0};
  static unsigned const own = std::random_device{}();
  return text(value, ".", own, "-", ++count, ".draft");
}

[[nodiscard]] inline error kv_store_error(std::string const& what, std::filesystem::path const& file,
                                          std::error_code code) {
  return error(
      {"nccl", "bootstrap", code.value(), -1, {}, text(what, " '", file.string(), "': ", code.message())});
}

inline bool put_file(std::filesystem::path const& file, std::string const& value) {
  namespace fs = std::filesystem;
  fs::path const draft = file.parent_path() / draft_name(file.filename().string());
  {
    std::ofstream out(draft, std::ios::binary);
    out << value;
    out.close();
    if (!out) throw kv_store_error("cannot write", draft, std::make_error_code(std::errc::io_error));
  }
  std::error_code failed, ignored;
  fs::create_hard_link(draft, file, failed);
  // Over NFS a successful link may be reported as failed: the link count decides.
  bool const there = !failed || fs::hard_link_count(draft, ignored) == 2;
  fs::remove(draft, ignored);
  if (there) return true;
  if (failed == std::errc::file_exists) return false;
  throw kv_store_error("the directory needs hard links, and has none for", file, failed);
}

}  // namespace detail

/// A kv_store of files `limber.<job>.<name>` in `directory`, which all ranks must share. A file appears by
/// link(2): atomically, and only if there is none of its name.
///
/// @param job  different for every start (launch_facts::job); files that a crashed start left under the same
///        name are reported as an error, never used
/// @throws std::invalid_argument if `directory` is no directory, or `job` is empty
[[nodiscard]] inline kv_store bootstrap_file(std::filesystem::path const& directory, std::string const& job) {
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
  kv_store made;
  made.put = [path_of](std::string const& name, std::string const& value) {
    return detail::put_file(path_of(name), value);
  };
  made.get = [path_of](std::string const& name) -> std::optional<std::string> {
    std::ifstream in(path_of(name), std::ios::binary);
    if (!in) return std::nullopt;
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  };
  made.remove = [path_of](std::string const& name) {
    std::error_code missing_ranks;
    fs::remove(path_of(name), missing_ranks);
  };
  made.where = text(directory.string(), "/limber.", clean, ".*");
  return made;
}

}  // namespace limber::nccl

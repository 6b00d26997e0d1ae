// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A key-value store that all workers of a run can read and write, without a communicator.

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/folder.hpp>
#include <limber/elastic/detail/store_key.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace limber::elastic {

/// A key-value store that workers share.
///
///     put_if_absent(key, value)  true for exactly one caller, however many call at once
///     replace(key, value)        whether or not there is an entry
///     get(key)                   the value, complete, or none
///     list(prefix)               the keys that begin with `prefix`, sorted
///     remove(key)                true if there was an entry
///
/// Each call is atomic, and its effect is visible to all calls that begin after it returned. Keys such as
/// "gen/3/here/host-17" have 1 to 200 letters, digits, ".", "_" and "-" in parts separated by slashes; a part
/// does not begin with ".". Values are at most 1 MiB, of any bytes.
template <class S>
concept store = requires(S& s, std::string const& key, std::string const& value) {
  { s.put_if_absent(key, value) } -> std::same_as<bool>;
  { s.replace(key, value) } -> std::same_as<void>;
  { s.get(key) } -> std::same_as<std::optional<std::string>>;
  { s.list(key) } -> std::same_as<std::vector<std::string>>;
  { s.remove(key) } -> std::same_as<bool>;
};

/// A store in a folder that all workers share: one file a key, all directly in the folder.
///
///     elastic::directory_store store{"/shared/run-7"};
///
/// A value is written to a temporary file, which is then linked (put_if_absent) or renamed (replace) to its
/// name, so a reader sees the complete value or none, even if the writer dies. A writer that dies may leave a
/// hidden file. All calls may be made by several threads and processes at once; none blocks on another.
///
/// Errors   limber::error of engine "store" naming call, key and folder, with errno as its code: a full disk,
///          a folder that is not writable, was removed or replaced. std::invalid_argument for invalid keys
///          and values.
/// Untrusted entries  what others put into the folder cannot redirect a call out of it: links are never
///                    followed; links, folders, pipes and files over 1 MiB are not listed, or not read (code
///                    EBADMSG).
/// Choices  no fsync unless `sync`: the contents survive the death of their writers, but not a loss of power.
///          The file system needs hard links. NFS does; mount it with `noac`, or clients see each other's
///          entries seconds late.
class directory_store {
 public:
  /// Creates the folder and its parents where missing.
  /// @param sync  each write is synced to the disk before the call returns
  /// @throws limber::error if that fails
  explicit directory_store(std::filesystem::path const& folder, bool sync = false) : folder_(folder, sync) {}

  /// False if there is an entry already, whatever its value. @throws limber::error
  bool put_if_absent(std::string_view key, std::string_view value) {
    detail::expect_key("put_if_absent", key);
    detail::expect_value("put_if_absent", key, value);
    return folder_.create(file_of(key), key, value);
  }

  /// @throws limber::error
  void replace(std::string_view key, std::string_view value) {
    detail::expect_key("replace", key);
    detail::expect_value("replace", key, value);
    folder_.replace(file_of(key), key, value);
  }

  /// @throws limber::error also if the entry was not written by a store
  [[nodiscard]] std::optional<std::string> get(std::string_view key) const {
    detail::expect_key("get", key);
    return folder_.read(file_of(key), key);
  }

  /// The keys that begin with `prefix`, sorted; all if it is empty.
  /// @throws limber::error also if there are more than 32,768
  [[nodiscard]] std::vector<std::string> list(std::string_view prefix) const {
    std::vector<std::string> keys;
    folder_.each(prefix, [&](std::string name) {
      std::replace(name.begin(), name.end(), separator, '/');
      if (name.compare(0, prefix.size(), prefix) != 0 || !detail::is_key(name)) return;
      if (keys.size() == store_list_limit)
        throw detail::store_error("list", prefix, text("there are more than ", store_list_limit, " keys"), 0);
      keys.push_back(std::move(name));
    });
    std::sort(keys.begin(), keys.end());
    return keys;
  }

  /// False if there was no entry. @throws limber::error
  bool remove(std::string_view key) {
    detail::expect_key("remove", key);
    return folder_.remove(file_of(key), key);
  }

  [[nodiscard]] std::filesystem::path const& folder() const noexcept { return folder_.path(); }

 private:
  static constexpr char separator = '+';  // never part of a key

  [[nodiscard]] static std::string file_of(std::string_view key) {
    std::string name(key);
    std::replace(name.begin(), name.end(), '/', separator);
    return name;
  }

  detail::folder folder_;
};

/// A store for the threads of one process: tests, simulations.
class memory_store {
 public:
  bool put_if_absent(std::string_view key, std::string_view value) {
    detail::expect_key("put_if_absent", key);
    detail::expect_value("put_if_absent", key, value);
    std::scoped_lock const lock(guard_);
    return values_.emplace(key, value).second;
  }
  void replace(std::string_view key, std::string_view value) {
    detail::expect_key("replace", key);
    detail::expect_value("replace", key, value);
    std::scoped_lock const lock(guard_);
    values_.insert_or_assign(std::string(key), std::string(value));
  }
  [[nodiscard]] std::optional<std::string> get(std::string_view key) const {
    detail::expect_key("get", key);
    std::scoped_lock const lock(guard_);
    auto const at = values_.find(key);
    if (at == values_.end()) return std::nullopt;
    return at->second;
  }
  [[nodiscard]] std::vector<std::string> list(std::string_view prefix) const {
    std::vector<std::string> keys;
    std::scoped_lock const lock(guard_);
    for (auto at = values_.lower_bound(prefix);
         at != values_.end() && at->first.compare(0, prefix.size(), prefix) == 0; ++at)
      keys.push_back(at->first);
    return keys;
  }
  bool remove(std::string_view key) {
    detail::expect_key("remove", key);
    std::scoped_lock const lock(guard_);
    auto const at = values_.find(key);
    if (at == values_.end()) return false;
    values_.erase(at);
    return true;
  }

 private:
  mutable std::mutex guard_;
  std::map<std::string, std::string, std::less<>> values_;
};

static_assert(store<directory_store> && store<memory_store>);

/// Sleeps. @param seconds ≥ 0
inline void sleep_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// How to wait on a store: by polling.
struct polling {
  double every = 0.02;  ///< seconds between two polls, > 0
  clock_function clock = steady_seconds;
  std::function<void(double)> pause = sleep_seconds;  ///< waits this number of seconds of `clock`
};

/// Waits for a key and returns its value.
/// @param deadline  seconds, ≥ 0
/// @throws limber::error naming the key at the deadline
template <store S>
[[nodiscard]] std::string wait(S& in, std::string_view key, double deadline, polling const& how = {}) {
  expects(deadline >= 0, "store: wait: the deadline must not be negative, got ", deadline);
  expects(how.every > 0, "store: wait: every must be positive, got ", how.every);
  double const start = how.clock();
  for (;;) {
    // The clock is read first: a waiter that was stopped meanwhile polls once more.
    bool const late = how.clock() - start >= deadline;
    if (auto value = in.get(std::string(key))) return *std::move(value);
    if (late) throw detail::store_error("wait", key, text("not there after ", deadline, " s"), ETIMEDOUT);
    how.pause(how.every);
  }
}

}  // namespace limber::elastic

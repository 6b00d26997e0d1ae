// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A key-value store that all workers of a run can read and write, without a communicator.

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/store_key.hpp>
#include <limber/elastic/directory_store.hpp>

#include <chrono>
#include <concepts>
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

/// A store for the threads of one process: tests, simulations.
class memory_store {
 public:
  bool put_if_absent(std::string_view key, std::string_view value) {
    detail::expect_entry("put_if_absent", key, value);
    std::scoped_lock const lock(guard_);
    return values_.emplace(key, value).second;
  }
  void replace(std::string_view key, std::string_view value) {
    detail::expect_entry("replace", key, value);
    std::scoped_lock const lock(guard_);
    values_.insert_or_assign(std::string(key), std::string(value));
  }
  [[nodiscard]] std::optional<std::string> get(std::string_view key) const {
    detail::expect_entry("get", key);
    std::scoped_lock const lock(guard_);
    auto const at = values_.find(key);
    return at == values_.end() ? std::nullopt : std::optional(at->second);
  }
  [[nodiscard]] std::vector<std::string> list(std::string_view prefix) const {
    std::vector<std::string> keys;
    std::scoped_lock const lock(guard_);
    for (auto at = values_.lower_bound(prefix); at != values_.end() && at->first.starts_with(prefix); ++at)
      keys.push_back(at->first);
    return keys;
  }
  bool remove(std::string_view key) {
    detail::expect_entry("remove", key);
    std::scoped_lock const lock(guard_);
    return values_.erase(std::string(key)) > 0;
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

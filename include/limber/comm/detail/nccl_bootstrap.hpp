// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The key-value store through which ranks exchange the id of a communicator, and failures; and the
/// rendezvous of the ranks of a new communicator, which agrees on its id and detects missing ranks.

#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/detail/shared_directory.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace limber::nccl {

/// The id of a new communicator, made by rank 0 and passed to all ranks.
using unique_id = std::array<std::byte, 128>;

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
    return limber::detail::create_file("nccl", path_of(name), value);
  };
  made.get = [path_of](std::string const& name) { return limber::detail::content_of(path_of(name)); };
  made.remove = [path_of](std::string const& name) {
    std::error_code missing_ranks;
    fs::remove(path_of(name), missing_ranks);
  };
  made.where = text(directory.string(), "/limber.", clean, ".*");
  return made;
}

}  // namespace limber::nccl

namespace limber::nccl::detail {

using limber::detail::ranks_text;

[[nodiscard]] inline std::string hex(unique_id const& id) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (std::byte const b : id) {
    out += digits[std::to_integer<unsigned>(b) >> 4];
    out += digits[std::to_integer<unsigned>(b) & 15u];
  }
  return out;
}
[[nodiscard]] inline std::optional<unique_id> from_hex(std::string_view s) {
  unique_id id;
  if (s.size() != 2 * id.size()) return std::nullopt;
  for (std::size_t i = 0; i < id.size(); ++i) {
    unsigned value = 0;
    auto const* const at = s.data() + 2 * i;
    if (auto const [end, failed] = std::from_chars(at, at + 2, value, 16);
        failed != std::errc() || end != at + 2)
      return std::nullopt;
    id[i] = static_cast<std::byte>(value);
  }
  return id;
}

/// The name of the communicator in the key-value store, derived from its id, which is unique to a start.
[[nodiscard]] inline std::string name_of(unique_id const& id) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (std::byte const b : id) h = (h ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3u;
  return text(h);
}

/// Polls the keys of the ranks in `missing`, and removes those that have one, until none is left or `late`.
template <class Late, class Found>
void await_keys(kv_store const& store, std::string const& key, std::vector<int>& missing,
                pause_function const& pause, Late late, Found found) {
  for (;;) {
    std::erase_if(missing, [&](int r) {
      auto const value = store.get(text(key, ".", r));
      if (value) found(r, *value);
      return value.has_value();
    });
    if (missing.empty() || late()) return;
    pause();
  }
}

/// The rendezvous before `init`: each rank writes a key with its GPU; rank 0 waits for all keys, and then
/// writes the id, or an error.
///
/// Cost     n keys written, 2 n read.
class rendezvous {
 public:
  rendezvous(kv_store const& b, int rank, int size, double deadline, clock_function const& clock,
             pause_function const& pause)
      : store_(b), rank_(rank), size_(size), deadline_(deadline), clock_(clock), pause_(pause) {}
  rendezvous(rendezvous const&) = delete;
  rendezvous& operator=(rendezvous const&) = delete;
  /// Removes the keys: after success they are not needed, after a failure they would disturb a later start.
  ~rendezvous() {
    try {
      if (registered_) store_.remove(presence_key(rank_));
      if (published_ && succeeded_) store_.remove(id_key);
    } catch (...) {  // the next start reports keys that are left
    }
  }

  /// @param make  called on rank 0 only, when all ranks are present
  /// @throws limber::error naming ranks that are missing, or that share a GPU
  template <class Make>
  [[nodiscard]] unique_id agree(std::string const& gpu, Make make) {
    double const start = clock_();
    if (rank_ == 0 && store_.get(id_key)) throw failed(-1, stale_key_message(id_key));
    if (!store_.put(presence_key(rank_), gpu))
      throw failed(rank_, text("there are two processes of rank ", rank_, ", or ",
                               stale_key_message(presence_key(rank_))));
    registered_ = true;
    return rank_ == 0 ? publish_id(gpu, start, make) : await_id(start);
  }

  /// Call this after all ranks have joined.
  void succeeded() noexcept { succeeded_ = true; }

 private:
  static constexpr char const* id_key = "id";

  [[nodiscard]] static std::string presence_key(int rank) { return text("here.", rank); }
  [[nodiscard]] static error failed(int rank, std::string reason) {
    return error({"nccl", "bootstrap", 0, rank, {}, std::move(reason)});
  }
  [[nodiscard]] std::string stale_key_message(std::string const& name) const {
    return text("an earlier start of the same job left its keys: remove ", store_.where, " (found '", name,
                "'), or give every start its own job name");
  }

  template <class Make>
  unique_id publish_id(std::string const& gpu, double start, Make make) {
    std::map<int, std::string> gpus{{0, gpu}};
    std::vector<int> missing(static_cast<std::size_t>(size_) - 1);
    std::iota(missing.begin(), missing.end(), 1);
    // Rank 0 writes its result early enough for the others to read it in time.
    await_keys(
        store_, "here", missing, pause_, [&] { return clock_() - start > 0.8 * deadline_; },
        [&](int r, std::string const& found) { gpus.emplace(r, found); });
    if (!missing.empty())
      reject(missing[0],
             text(ranks_text(missing), " of ", size_, " did not come within ", 0.8 * deadline_, " s"));
    std::map<std::string, int> owners;
    for (auto const& [r, name] : gpus)
      if (auto const [at, first] = owners.try_emplace(name, r); !first)
        reject(r, text("rank ", at->second, " and rank ", r, " share the GPU ", name,
                       ", which NCCL refuses: start as many ranks on a machine as it has GPUs, and give each "
                       "its own (options::device, or the local rank)"));
    unique_id const id = make();
    if (!store_.put(id_key, text("+", hex(id)))) throw failed(-1, stale_key_message(id_key));
    published_ = true;
    return id;
  }

  [[noreturn]] void reject(int rank, std::string const& reason) {
    (void)store_.put(id_key, text("-", rank, " ", reason));
    throw failed(rank, reason);
  }

  unique_id await_id(double start) {
    for (;;) {
      if (auto const said = store_.get(id_key)) {
        if (said->starts_with('-')) {
          std::size_t const space = std::min(said->find(' '), said->size() - 1);
          int culprit = -1;
          std::from_chars(said->data() + 1, said->data() + space, culprit);
          throw failed(culprit, said->substr(space + 1));
        }
        auto const id = from_hex(std::string_view(*said).substr(1));
        if (!id) throw failed(0, text("the key '", id_key, "' of ", store_.where, " holds no id"));
        return *id;
      }
      if (clock_() - start > deadline_)
        throw failed(0, text("rank 0 of ", size_, " did not come within ", deadline_, " s"));
      pause_();
    }
  }

  kv_store const& store_;
  int rank_, size_;
  double deadline_;
  clock_function const& clock_;
  pause_function const& pause_;
  bool registered_ = false, published_ = false, succeeded_ = false;
};

}  // namespace limber::nccl::detail

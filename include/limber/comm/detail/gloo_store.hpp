// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How the ranks of a `gloo` communicator find each other: notes in a store.

#include <limber/comm/detail/gloo_options.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <gloo/common/error.h>
#include <gloo/rendezvous/store.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <ios>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace limber::gloo {

namespace detail {

/// A store of Gloo's kind in a directory that all ranks share, one file a key. Gloo's own rounds
/// timeouts up to whole seconds, and takes two writers of one key for one.
class directory_store final : public ::gloo::rendezvous::Store {
 public:
  explicit directory_store(std::filesystem::path directory) : directory_(std::move(directory)) {
    std::error_code failed;
    std::filesystem::create_directories(directory_, failed);
    expects(std::filesystem::is_directory(directory_, failed), "gloo: file_rendezvous: '",
            directory_.string(), "' is no directory and cannot become one");
  }

  /// @throws limber::error if the key is there already, or nothing can be written
  void set(std::string const& key, std::vector<char> const& data) override {
    namespace fs = std::filesystem;
    // Drawn each time: a process that was forked has all that its parent drew before.
    std::random_device source;
    fs::path const file = path_of(key), draft = directory_ / text(".", source(), "-", source(), ".draft");
    {
      std::ofstream out(draft, std::ios::binary);
      out.write(data.data(), static_cast<std::streamsize>(data.size()));
      out.close();
      if (!out) throw setup_error(text("cannot write '", draft.string(), "'"));
    }
    std::error_code failed, ignored;
    fs::create_hard_link(draft, file, failed);
    // Over NFS a link that succeeded may be reported as failed: the count of links tells.
    bool const there = !failed || fs::hard_link_count(draft, ignored) == 2;
    fs::remove(draft, ignored);
    if (there) return;
    if (failed == std::errc::file_exists)
      throw setup_error(text("'", file.string(),
                             "' is there already: two processes have one rank, or an earlier start used the "
                             "same directory and prefix; give every start its own"));
    throw setup_error(
        text("the directory needs hard links, and has none for '", file.string(), "': ", failed.message()));
  }
  std::vector<char> get(std::string const& key) override {
    wait({key});
    std::ifstream in(path_of(key), std::ios::binary);
    if (!in) throw setup_error(text("cannot read '", path_of(key).string(), "'"));
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  void wait(std::vector<std::string> const& keys) override { wait(keys, kDefaultTimeout); }
  void wait(std::vector<std::string> const& keys, std::chrono::milliseconds const& timeout) override {
    double const start = steady_seconds();
    double const patience = std::chrono::duration<double>(timeout).count();
    auto const there = [this](std::string const& k) {
      std::error_code ignored;
      return std::filesystem::exists(path_of(k), ignored);
    };
    while (!std::ranges::all_of(keys, there)) {
      if (timeout != ::gloo::kNoTimeout && steady_seconds() - start >= patience)
        throw ::gloo::IoException("Wait timeout for keys");
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

 private:
  /// Keys hold slashes; file names must not, and are at most 255 bytes long.
  [[nodiscard]] std::filesystem::path path_of(std::string const& key) const {
    std::string name;
    for (char const c : key) {
      bool const plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                         c == '.' || c == '-' || c == '_';
      if (plain)
        name += c;
      else
        name += text("%", static_cast<int>(static_cast<unsigned char>(c)), "%");
    }
    expects(name.size() <= 250, "gloo: the key '", key, "' is too long for a file name");
    return directory_ / text("k.", name);
  }

  std::filesystem::path directory_;
};

/// Who meets: what messages call them, and why one that is still missing will not come ("" if it may).
struct guests {
  std::vector<int> names{};  ///< by rank in the group that is to be
  std::function<std::string(int name)> excuse{};
};

/// Waits until the notes of all ranks below `prefix` are there, and returns them in rank order.
/// @throws limber::error naming all ranks that did not come in time
[[nodiscard]] inline std::vector<std::vector<char>> gather_notes(::gloo::rendezvous::Store& store,
                                                                 std::string const& prefix,
                                                                 options const& how, double patience,
                                                                 guests const& who) {
  using namespace std::chrono_literals;
  double const start = how.clock();
  std::size_t const size = who.names.size();
  std::vector<std::vector<char>> notes(size);
  std::string missing;
  int first = -1;
  for (std::size_t r = 0; r < size; ++r) {
    int const name = who.names[r];
    std::string const key = text(prefix, "/", r);
    for (;;) {
      try {
        // A timeout of 0 would mean none.
        store.wait({key}, how.clock() - start < patience ? 50ms : 1ms);
        notes[r] = store.get(key);
        break;
      } catch (::gloo::IoException const&) {
        std::string const why = who.excuse ? who.excuse(name) : std::string{};
        if (!why.empty()) throw setup_error(why, name);
        if (how.clock() - start < patience) continue;
        if (first < 0) first = name;
        missing += text(missing.empty() ? "rank " : ", rank ", name);
        break;
      }
    }
  }
  if (first >= 0)
    throw setup_error(text(missing, " of ", size, " did not come within ", how.meeting, " s"), first);
  return notes;
}

}  // namespace detail

/// Where the ranks of a communicator meet: any store of Gloo's, for instance this directory, which all
/// ranks share. It is made if it is not there; what is written into it stays (a small file a rank and
/// group), so give every start of a job its own directory or prefix.
///
/// @throws std::invalid_argument if `directory` is none and cannot be made
[[nodiscard]] inline std::shared_ptr<::gloo::rendezvous::Store> file_rendezvous(
    std::filesystem::path const& directory) {
  return std::make_shared<detail::directory_store>(directory);
}

}  // namespace limber::gloo

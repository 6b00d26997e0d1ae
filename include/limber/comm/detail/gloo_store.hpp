// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The store through which the ranks of a `gloo` communicator exchange their addresses.

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

/// A Gloo store in a directory that all ranks share, one file per key. Gloo's own store rounds timeouts up to
/// whole seconds, and does not detect two writers of one key.
class directory_store final : public ::gloo::rendezvous::Store {
 public:
  explicit directory_store(std::filesystem::path directory) : directory_(std::move(directory)) {
    std::error_code failed;
    std::filesystem::create_directories(directory_, failed);
    expects(std::filesystem::is_directory(directory_, failed), "gloo: file_rendezvous: '",
            directory_.string(), "' is no directory and cannot become one");
  }

  /// @throws limber::error if the key exists already, or the file cannot be written
  void set(std::string const& key, std::vector<char> const& data) override {
    namespace fs = std::filesystem;
    // Drawn each time: a forked process would repeat a value that its parent drew before.
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
    // Over NFS a successful link may be reported as failed: the link count decides.
    bool const there = !failed || fs::hard_link_count(draft, ignored) == 2;
    fs::remove(draft, ignored);
    if (there) return;
    if (failed == std::errc::file_exists)
      throw setup_error(text("'", file.string(),
                             "' exists already: two processes have one rank, or an earlier start used the "
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
    double const seconds = std::chrono::duration<double>(timeout).count();
    auto const there = [this](std::string const& k) {
      std::error_code ignored;
      return std::filesystem::exists(path_of(k), ignored);
    };
    while (!std::ranges::all_of(keys, there)) {
      if (timeout != ::gloo::kNoTimeout && steady_seconds() - start >= seconds)
        throw ::gloo::IoException("Wait timeout for keys");
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

 private:
  /// Encodes a key as a file name: without slashes, and at most 255 bytes long.
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

/// The ranks that take part in a rendezvous, as error messages name them.
struct participants {
  std::vector<int> ranks{};  ///< by rank in the new group
  /// Why a missing rank will not come; empty if it may.
  std::function<std::string(int rank)> absence_reason{};
};

/// Waits for the records of all ranks under `prefix`, and returns them in rank order.
/// @throws limber::error naming all missing ranks at the deadline
[[nodiscard]] inline std::vector<std::vector<char>> gather_records(::gloo::rendezvous::Store& store,
                                                                   std::string const& prefix,
                                                                   options const& how, double timeout,
                                                                   participants const& who) {
  using namespace std::chrono_literals;
  double const start = how.clock();
  std::size_t const size = who.ranks.size();
  std::vector<std::vector<char>> records(size);
  std::string missing;
  int first = -1;
  for (std::size_t r = 0; r < size; ++r) {
    int const rank = who.ranks[r];
    std::string const key = text(prefix, "/", r);
    for (;;) {
      try {
        // A timeout of 0 would mean none.
        store.wait({key}, how.clock() - start < timeout ? 50ms : 1ms);
        records[r] = store.get(key);
        break;
      } catch (::gloo::IoException const&) {
        std::string const why = who.absence_reason ? who.absence_reason(rank) : std::string{};
        if (!why.empty()) throw setup_error(why, rank);
        if (how.clock() - start < timeout) continue;
        if (first < 0) first = rank;
        missing += text(missing.empty() ? "rank " : ", rank ", rank);
        break;
      }
    }
  }
  if (first >= 0)
    throw setup_error(text(missing, " of ", size, " did not come within ", how.rendezvous_deadline, " s"),
                      first);
  return records;
}

}  // namespace detail

/// A rendezvous store for the ranks of a communicator, in a directory that all of them share (any other Gloo
/// store serves as well). The directory is created if missing. Its files stay (a small one per rank and
/// group), so give every start of a job its own directory or prefix.
///
/// @throws std::invalid_argument if `directory` is no directory and cannot be created
[[nodiscard]] inline std::shared_ptr<::gloo::rendezvous::Store> file_rendezvous(
    std::filesystem::path const& directory) {
  return std::make_shared<detail::directory_store>(directory);
}

}  // namespace limber::gloo

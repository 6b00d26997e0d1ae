// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of a `gloo` communicator (deadlines, network interface), and the store through which its ranks
/// exchange their addresses.

#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/detail/shared_directory.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <gloo/common/error.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/attr.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace limber::gloo_engine {

/// Deadlines of a `gloo` communicator, and where its ranks listen.
struct options {
  double deadline = 60;  ///< seconds without progress until a call fails, > 0
  double rendezvous_deadline =
      60;  ///< seconds until all ranks must have met: at construction, split, shrink; > 0
  std::string prefix = "limber";  ///< of all keys in the store; unique to each world or generation
  /// The network interface ("eth0") or, without one, the host name or address to listen at. By default
  /// the machine's host name, and 127.0.0.1 where that is no address of this machine.
  std::string interface {};
  std::string host{};  ///< see `interface`; ranks on several machines must reach one another there
  int lanes = 2;       ///< operations that run at the same time, > 0; they complete in order all the same
  clock_function clock = steady_seconds;  ///< called from all threads at once; must not throw
};

namespace detail {

inline void check(options const& how) {
  limber::detail::check_waiting("gloo", how.deadline, how.clock);
  expects(how.rendezvous_deadline > 0, "gloo: rendezvous_deadline must be > 0 s, got ",
          how.rendezvous_deadline);
  expects(how.lanes > 0, "gloo: lanes must be > 0, got ", how.lanes);
  expects(!how.prefix.empty(), "gloo: prefix is empty");
  expects(how.interface.empty() || how.host.empty(), "gloo: both interface '", how.interface, "' and host '",
          how.host, "' are given");
}

[[nodiscard]] inline error setup_error(std::string const& reason, int rank = -1) {
  return error({"gloo", "bootstrap", 0, rank, {}, reason});
}

/// The local address, and the Gloo device (one thread) that serves all groups of a communicator.
struct local_endpoint {
  ::gloo::transport::tcp::attr at{};
  std::shared_ptr<::gloo::transport::Device> device{};
};

[[nodiscard]] inline local_endpoint make_local_endpoint(options const& how) {
  namespace tcp = ::gloo::transport::tcp;
  auto const open = [](tcp::attr const& wanted) {
    local_endpoint p;
    p.at = tcp::CreateDeviceAttr(wanted);
    p.device = tcp::CreateDevice(wanted);
    return p;
  };
  tcp::attr wanted;
  wanted.iface = how.interface;
  wanted.hostname = how.host;
  try {
    return open(wanted);
  } catch (std::exception const& e) {
    if (!how.interface.empty() || !how.host.empty())
      throw setup_error(
          text("cannot listen at '", how.interface.empty() ? how.host : how.interface, "': ", e.what()));
  }
  wanted.hostname = "127.0.0.1";
  try {
    return open(wanted);
  } catch (std::exception const& e) { throw setup_error(text("cannot listen at 127.0.0.1: ", e.what())); }
}

}  // namespace detail

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
    std::filesystem::path const file = path_of(key);
    if (!limber::detail::create_file("gloo", file, {data.data(), data.size()}))
      throw setup_error(text("'", file.string(),
                             "' exists already: two processes have one rank, or an earlier start used the "
                             "same directory and prefix; give every start its own"));
  }
  std::vector<char> get(std::string const& key) override {
    wait({key});
    auto const content = limber::detail::content_of(path_of(key));
    if (!content) throw setup_error(text("cannot read '", path_of(key).string(), "'"));
    return {content->begin(), content->end()};
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
  std::vector<int> missing;
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
        missing.push_back(rank);
        break;
      }
    }
  }
  if (!missing.empty())
    throw setup_error(text(limber::detail::ranks_text(missing), " of ", size, " did not come within ",
                           how.rendezvous_deadline, " s"),
                      missing[0]);
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

}  // namespace limber::gloo_engine

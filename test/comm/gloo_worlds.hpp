// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Gloo worlds for tests: a directory for the rendezvous, and processes.

#include <limber/comm/gloo.hpp>

#include <support/processes.hpp>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <system_error>

namespace limber::test {

/// A temporary directory, created and removed by the test process.
class rendezvous_folder {
 public:
  rendezvous_folder() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() / text("limber-gloo-", ::getpid(), "-", ++count);
    std::filesystem::create_directories(path_);
  }
  rendezvous_folder(rendezvous_folder const&) = delete;
  rendezvous_folder& operator=(rendezvous_folder const&) = delete;
  ~rendezvous_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }
  [[nodiscard]] gloo_engine::communicator join(int rank, int size, gloo_engine::options how = {}) const {
    how.host = "127.0.0.1";
    return gloo_engine::communicator(rank, size, gloo_engine::file_rendezvous(path_), std::move(how));
  }

 private:
  std::filesystem::path path_;
};

/// f(communicator&) on n processes.
template <class F>
void run_gloo(int n, F const& f, gloo_engine::options how = {}, double seconds = 60) {
  rendezvous_folder const place;
  run_processes(
      n,
      [&](int rank) {
        auto comm = place.join(rank, n, how);
        f(comm);
      },
      seconds);
}

}  // namespace limber::test

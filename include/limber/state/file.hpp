// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Files and folders of the operating system: every call is checked, and written data are synced.

#include <limber/core/config.hpp>
#include <limber/state/errors.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace limber::state {

/// Called before each call that changes the disk, with the call's name and path: 0 lets it proceed, an errno
/// makes it fail. For tests of full disks and of processes that die.
using disk_hook = std::function<int(std::string_view call, std::string const& path)>;

namespace detail {

inline void check_hook(disk_hook const& hook, std::string_view call, std::string const& path) {
  if (!hook) return;
  if (int const code = hook(call, path); code != 0) throw_system_error(call, path, code);
}

/// Owns a file descriptor.
class descriptor {
 public:
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~descriptor() { close(); }

  [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int get() const noexcept { return fd_; }

  /// On NFS a full disk is reported by close() only.
  bool close() noexcept {
    int const fd = std::exchange(fd_, -1);
    return fd < 0 || ::close(fd) == 0;
  }

  /// Fills `to` from byte `at` on; both are moved on, and at the end of the file the rest of `to` is left.
  /// @return 0, or an errno
  [[nodiscard]] int read(i64& at, std::span<std::byte>& to) const noexcept {
    while (!to.empty()) {
      auto const n = ::pread(fd_, to.data(), to.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return n < 0 ? errno : 0;
      to = to.subspan(static_cast<std::size_t>(n));
      at += n;
    }
    return 0;
  }
  /// @return 0, or an errno
  [[nodiscard]] int write(i64 at, std::span<std::byte const> from) const noexcept {
    while (!from.empty()) {
      auto const n = ::pwrite(fd_, from.data(), from.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return n < 0 ? errno : ENOSPC;
      from = from.subspan(static_cast<std::size_t>(n));
      at += n;
    }
    return 0;
  }

 private:
  int fd_;
};

/// An open file.
class file {
 public:
  /// Creates a file that must not exist. @throws limber::error naming path and reason
  [[nodiscard]] static file create(std::string path, disk_hook const& hook) {
    check_hook(hook, "create", path);
    return {::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666), "create",
            std::move(path), hook};
  }
  /// Opens a regular file for reading. Does not follow links, and does not block on pipes.
  [[nodiscard]] static file open(std::string path) {
    file out{
        ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), "open", std::move(path), {}};
    struct stat s {};
    if (::fstat(out.fd_.get(), &s) != 0) throw_system_error("open", out.path_, errno);
    if (!S_ISREG(s.st_mode)) throw_corrupt(out.path_, {}, "is not a plain file");
    out.size_ = static_cast<i64>(s.st_size);
    return out;
  }

  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  [[nodiscard]] i64 size() const noexcept { return size_; }

  /// Fills `to` from byte `at` on. @throws limber::error if the file is shorter
  void read(i64 at, std::span<std::byte> to) const {
    if (int const code = fd_.read(at, to); code != 0) throw_system_error("read", path_, code);
    if (!to.empty()) throw_corrupt(path_, {}, text("ends at byte ", at));
  }
  void write(i64 at, std::span<std::byte const> from) const {
    check_hook(hook_, "write", path_);
    if (int const code = fd_.write(at, from); code != 0) throw_system_error("write", path_, code);
  }
  /// Syncs and closes the file.
  void finish() {
    check_hook(hook_, "sync", path_);
    if (::fsync(fd_.get()) != 0) throw_system_error("sync", path_, errno);
    if (!fd_.close()) throw_system_error("close", path_, errno);
  }

 private:
  file(int fd, std::string_view call, std::string path, disk_hook hook)
      : fd_(fd), path_(std::move(path)), hook_(std::move(hook)) {
    if (!fd_) throw_system_error(call, path_, errno);
  }

  descriptor fd_;
  i64 size_ = 0;
  std::string path_;
  disk_hook hook_;
};

/// Syncs the names in a folder. File systems that cannot sync a folder return EINVAL.
inline void sync_folder(std::filesystem::path const& folder, disk_hook const& hook) {
  std::string const path = folder.empty() ? "." : folder.string();
  check_hook(hook, "sync", path);
  descriptor const fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) throw_system_error("open", path, errno);
  if (::fsync(fd.get()) != 0 && errno != EINVAL) throw_system_error("sync", path, errno);
}

inline void make_folder(std::filesystem::path const& folder, disk_hook const& hook) {
  check_hook(hook, "mkdir", folder.string());
  if (::mkdir(folder.c_str(), 0777) != 0) throw_system_error("mkdir", folder.string(), errno);
}

/// Creates a folder and its parents where missing, and syncs each name.
inline void make_folders(std::filesystem::path const& folder, disk_hook const& hook) {
  std::error_code e;
  if (folder.empty() || std::filesystem::is_directory(folder, e)) return;
  make_folders(folder.parent_path(), hook);
  check_hook(hook, "mkdir", folder.string());
  std::filesystem::create_directory(folder, e);
  if (e) throw_system_error("mkdir", folder.string(), e == std::errc::file_exists ? ENOTDIR : e.value());
  sync_folder(folder.parent_path(), hook);
}

/// Removes a folder and its contents; links are removed, not followed.
inline void remove_folder(std::filesystem::path const& folder, disk_hook const& hook) {
  check_hook(hook, "remove", folder.string());
  std::error_code e;
  std::filesystem::remove_all(folder, e);
  if (e) throw_system_error("remove", folder.string(), e.value());
}

}  // namespace detail
}  // namespace limber::state

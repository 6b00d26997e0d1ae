// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// An open folder whose files appear atomically.

#include <limber/core/error.hpp>
#include <limber/elastic/detail/store_key.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace limber::elastic::detail {

/// Owns a file descriptor.
class descriptor {
 public:
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(descriptor const&) = delete;
  descriptor& operator=(descriptor const&) = delete;
  ~descriptor() { close(); }

  [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int get() const noexcept { return fd_; }

  /// On NFS a full disk is reported by close() only.
  bool close() noexcept {
    int const fd = std::exchange(fd_, -1);
    return fd < 0 || ::close(fd) == 0;
  }

 private:
  int fd_;
};

/// The files of one folder by name. Links are not followed, and opening never blocks. Names are not checked
/// here.
class folder {
 public:
  /// Creates the folder and its parents where missing. @throws limber::error
  folder(std::filesystem::path const& path, bool sync)
      : path_(prepared(path)), sync_(sync), fd_(opened(path_)) {}

  /// False if there is a file of this name already.
  bool create(std::string const& name, std::string_view key, std::string_view value) {
    constexpr std::string_view call = "put_if_absent";
    struct stat there {};
    if (::fstatat(fd_.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0) return false;
    draft const d(*this, call, key, value);
    int const code = ::linkat(fd_.get(), d.name.c_str(), fd_.get(), name.c_str(), 0) == 0 ? 0 : errno;
    // Over NFS a successful link may be reported as failed: the link count decides.
    bool const made = code == 0 || (::fstatat(fd_.get(), d.name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
                                    there.st_nlink == 2);
    if (!made && code != EEXIST) throw failed(call, key, "cannot link", code);
    if (made) sync_names(call, key);
    return made;
  }

  void replace(std::string const& name, std::string_view key, std::string_view value) {
    constexpr std::string_view call = "replace";
    draft const d(*this, call, key, value);
    if (::renameat(fd_.get(), d.name.c_str(), fd_.get(), name.c_str()) != 0)
      throw failed(call, key, "cannot rename", errno);
    sync_names(call, key);
  }

  [[nodiscard]] std::optional<std::string> read(std::string const& name, std::string_view key) const {
    // Over NFS, a file that is replaced while it is read returns ESTALE.
    for (int attempt = 1;; ++attempt) {
      int code = 0;
      auto value = read_once(name, key, code);
      if (code == 0) return value;
      if (code != ESTALE || attempt == 5) throw failed("get", key, "cannot read", code);
    }
  }

  bool remove(std::string const& name, std::string_view key) {
    if (::unlinkat(fd_.get(), name.c_str(), 0) != 0) {
      int const code = errno;
      if (code != ENOENT) throw failed("remove", key, "cannot remove", code);
      expect_folder("remove", key);
      return false;
    }
    sync_names("remove", key);
    return true;
  }

  /// Calls f(name) for each regular file. @throws limber::error if the folder is gone
  template <class F>
  void each(std::string_view prefix, F&& f) const {
    namespace fs = std::filesystem;
    struct stat by_name {
    }, by_handle{};
    if (::stat(path_.c_str(), &by_name) != 0) throw failed("list", prefix, "cannot find the folder", errno);
    if (::fstat(fd_.get(), &by_handle) != 0) throw failed("list", prefix, "cannot look at the folder", errno);
    if (by_name.st_dev != by_handle.st_dev || by_name.st_ino != by_handle.st_ino)
      throw failed("list", prefix, "the folder was replaced by another", ESTALE);
    std::error_code code;
    for (fs::directory_iterator at(path_, code), end; !code && at != end; at.increment(code)) {
      std::error_code vanished;
      if (!at->is_symlink(vanished) && at->is_regular_file(vanished)) f(at->path().filename().string());
    }
    if (code) throw failed("list", prefix, "cannot list", code.value());
  }

  [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }

 private:
  /// A file under a unique name that `list` does not show; removed by the destructor.
  struct draft {
    draft(folder& in, std::string_view call, std::string_view key, std::string_view value) : owner(in) {
      for (int attempt = 1;; ++attempt) {
        name = text(".draft-", ::getpid(), "-", in.salt_, "-", ++in.drafts_);
        descriptor file(
            ::openat(in.fd_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
        if (!file && errno == EEXIST && attempt < 100) continue;
        if (!file) throw in.failed(call, key, "cannot create a file", errno);
        int code = written(file, value);
        if (code == 0 && in.sync_ && ::fsync(file.get()) != 0) code = errno;
        if (!file.close() && code == 0) code = errno;
        if (code == 0) return;
        ::unlinkat(in.fd_.get(), name.c_str(), 0);
        throw in.failed(call, key, "cannot write", code);
      }
    }
    draft(draft const&) = delete;
    draft& operator=(draft const&) = delete;
    ~draft() { ::unlinkat(owner.fd_.get(), name.c_str(), 0); }

    folder& owner;
    std::string name;
  };

  [[nodiscard]] static int written(descriptor const& file, std::string_view value) noexcept {
    while (!value.empty()) {
      ssize_t const n = ::write(file.get(), value.data(), value.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return n < 0 ? errno : EIO;
      value.remove_prefix(static_cast<std::size_t>(n));
    }
    return 0;
  }

  [[nodiscard]] std::optional<std::string> read_once(std::string const& name, std::string_view key,
                                                     int& code) const {
    constexpr int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    descriptor const file(::openat(fd_.get(), name.c_str(), flags));
    if (!file) {
      if (errno == ELOOP || errno == ENXIO) throw foreign(key, "it is no regular file");
      if (errno != ENOENT)
        code = errno;
      else
        expect_folder("get", key);
      return std::nullopt;
    }
    struct stat found {};
    if (::fstat(file.get(), &found) != 0) {
      code = errno;
      return std::nullopt;
    }
    if (!S_ISREG(found.st_mode)) throw foreign(key, "it is no regular file");
    if (found.st_size < 0 || static_cast<std::size_t>(found.st_size) > store_value_limit)
      throw foreign(key,
                    text("it has ", found.st_size, " bytes, at most ", store_value_limit, " are allowed"));
    std::string value(static_cast<std::size_t>(found.st_size), '\0');
    std::size_t have = 0;
    while (have < value.size()) {
      ssize_t const n = ::read(file.get(), value.data() + have, value.size() - have);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        code = errno;
        return std::nullopt;
      }
      if (n == 0) throw foreign(key, "it became shorter while it was read");
      have += static_cast<std::size_t>(n);
    }
    return value;
  }

  void sync_names(std::string_view call, std::string_view key) {
    if (sync_ && ::fsync(fd_.get()) != 0) throw failed(call, key, "cannot sync the folder", errno);
  }

  /// Throws if the folder was removed: lookups in it would only report ENOENT.
  void expect_folder(std::string_view call, std::string_view key) const {
    struct stat found {};
    if (::fstat(fd_.get(), &found) != 0) throw failed(call, key, "cannot look at the folder", errno);
    if (found.st_nlink == 0) throw failed(call, key, "the folder was removed", ENOENT);
  }

  [[nodiscard]] error failed(std::string_view call, std::string_view key, std::string_view what,
                             int code) const {
    return store_error(call, key, text("in ", path_.string(), ": ", what), code);
  }
  [[nodiscard]] error foreign(std::string_view key, std::string_view what) const {
    return failed("get", key, text("no store put this: ", what), foreign_entry);
  }

  [[nodiscard]] static std::filesystem::path prepared(std::filesystem::path const& path) {
    expects(!path.empty(), "directory_store: the folder has no name");
    std::error_code code;
    auto absolute = std::filesystem::absolute(path, code);
    if (!code) std::filesystem::create_directories(absolute, code);
    if (code) throw store_error("open", path.string(), "cannot create the folder", code.value());
    return absolute;
  }
  [[nodiscard]] static int opened(std::filesystem::path const& path) {
    int const fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) throw store_error("open", path.string(), "cannot open the folder", errno);
    return fd;
  }

  std::filesystem::path path_;
  bool sync_;
  descriptor fd_;
  unsigned salt_ = std::random_device{}();
  std::atomic<unsigned long long> drafts_{0};
};

}  // namespace limber::elastic::detail

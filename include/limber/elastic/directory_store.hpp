// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A store in a folder: one file a key, which appears atomically.

#include <limber/core/error.hpp>
#include <limber/elastic/detail/store_key.hpp>
#include <limber/state/file.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace limber::elastic {

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
  explicit directory_store(std::filesystem::path const& folder, bool sync = false)
      : path_(prepared(folder)), sync_(sync), fd_(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (!fd_) throw detail::store_error("open", path_.string(), "cannot open the folder", errno);
  }

  /// False if there is an entry already, whatever its value. @throws limber::error
  bool put_if_absent(std::string_view key, std::string_view value) {
    access const a = access_to("put_if_absent", key, value);
    struct stat there {};
    if (::fstatat(fd_.get(), a.file.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0) return false;
    std::string const draft = write_draft(a, value);
    int const code = ::linkat(fd_.get(), draft.c_str(), fd_.get(), a.file.c_str(), 0) == 0 ? 0 : errno;
    // Over NFS a successful link may be reported as failed: the link count decides.
    bool const made = code == 0 || (::fstatat(fd_.get(), draft.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
                                    there.st_nlink == 2);
    ::unlinkat(fd_.get(), draft.c_str(), 0);
    if (!made && code != EEXIST) throw failed(a, "cannot link", code);
    if (made) sync_names(a);
    return made;
  }

  /// @throws limber::error
  void replace(std::string_view key, std::string_view value) {
    access const a = access_to("replace", key, value);
    std::string const draft = write_draft(a, value);
    if (::renameat(fd_.get(), draft.c_str(), fd_.get(), a.file.c_str()) != 0) {
      int const code = errno;
      ::unlinkat(fd_.get(), draft.c_str(), 0);
      throw failed(a, "cannot rename", code);
    }
    sync_names(a);
  }

  /// @throws limber::error also if the entry was not written by a store
  [[nodiscard]] std::optional<std::string> get(std::string_view key) const {
    access const a = access_to("get", key);
    std::string value;
    // Over NFS, a file that is replaced while it is read returns ESTALE.
    for (int attempt = 1;; ++attempt) {
      int const code = read(a, value);
      if (code == 0) return value;
      if (code == ENOENT) break;
      if (code != ESTALE || attempt == 5) throw failed(a, "cannot read", code);
    }
    expect_folder(a);
    return std::nullopt;
  }

  /// The keys that begin with `prefix`, sorted; all if it is empty.
  /// @throws limber::error also if the folder is gone, or there are more than 32,768
  [[nodiscard]] std::vector<std::string> list(std::string_view prefix) const {
    access const a{"list", prefix, {}};
    struct stat by_name {};
    if (::stat(path_.c_str(), &by_name) != 0) throw failed(a, "cannot find the folder", errno);
    struct stat const by_handle = status(a);
    if (by_name.st_dev != by_handle.st_dev || by_name.st_ino != by_handle.st_ino)
      throw failed(a, "the folder was replaced by another", ESTALE);
    std::vector<std::string> keys;
    std::error_code code;
    for (std::filesystem::directory_iterator at(path_, code), end; !code && at != end; at.increment(code)) {
      std::error_code vanished;
      if (at->is_symlink(vanished) || !at->is_regular_file(vanished)) continue;
      std::string name = at->path().filename().string();
      std::ranges::replace(name, separator, '/');
      if (!name.starts_with(prefix) || !detail::is_key(name)) continue;
      if (keys.size() == store_list_limit)
        throw detail::store_error("list", prefix, text("there are more than ", store_list_limit, " keys"), 0);
      keys.push_back(std::move(name));
    }
    if (code) throw failed(a, "cannot list", code.value());
    std::ranges::sort(keys);
    return keys;
  }

  /// False if there was no entry. @throws limber::error
  bool remove(std::string_view key) {
    access const a = access_to("remove", key);
    bool const removed = ::unlinkat(fd_.get(), a.file.c_str(), 0) == 0;
    if (!removed && errno != ENOENT) throw failed(a, "cannot remove", errno);
    removed ? sync_names(a) : expect_folder(a);
    return removed;
  }

  [[nodiscard]] std::filesystem::path const& folder() const noexcept { return path_; }

 private:
  static constexpr char separator = '+';  // never part of a key

  struct access {
    std::string_view call, key;
    std::string file;
  };

  [[nodiscard]] static access access_to(std::string_view call, std::string_view key,
                                        std::string_view value = {}) {
    detail::expect_entry(call, key, value);
    access a{call, key, std::string(key)};
    std::ranges::replace(a.file, '/', separator);
    return a;
  }

  /// Writes a file of a unique name that `list` does not show. @return the name
  [[nodiscard]] std::string write_draft(access const& a, std::string_view value) {
    for (int attempt = 1;; ++attempt) {
      std::string name = text(".draft-", ::getpid(), "-", salt_, "-", ++drafts_);
      constexpr int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
      state::detail::descriptor file(::openat(fd_.get(), name.c_str(), flags, 0644));
      if (!file && errno == EEXIST && attempt < 100) continue;
      if (!file) throw failed(a, "cannot create a file", errno);
      int code = file.write(0, std::as_bytes(std::span(value)));
      if (code == 0 && sync_ && ::fsync(file.get()) != 0) code = errno;
      if (!file.close() && code == 0) code = errno;
      if (code == 0) return name;
      ::unlinkat(fd_.get(), name.c_str(), 0);
      throw failed(a, "cannot write", code);
    }
  }

  /// Reads an entry's file. Links are not followed, and opening never blocks. @return 0, or an errno
  [[nodiscard]] int read(access const& a, std::string& value) const {
    constexpr int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    state::detail::descriptor const file(::openat(fd_.get(), a.file.c_str(), flags));
    if (!file && (errno == ELOOP || errno == ENXIO)) throw foreign(a, "it is no regular file");
    struct stat found {};
    if (!file || ::fstat(file.get(), &found) != 0) return errno;
    if (!S_ISREG(found.st_mode)) throw foreign(a, "it is no regular file");
    if (found.st_size < 0 || static_cast<std::size_t>(found.st_size) > store_value_limit)
      throw foreign(a, text("it has ", found.st_size, " bytes, at most ", store_value_limit, " are allowed"));
    value.resize(static_cast<std::size_t>(found.st_size));
    auto to = std::as_writable_bytes(std::span(value));
    i64 at = 0;
    int const code = file.read(at, to);
    if (code == 0 && !to.empty()) throw foreign(a, "it became shorter while it was read");
    return code;
  }

  void sync_names(access const& a) {
    if (sync_ && ::fsync(fd_.get()) != 0) throw failed(a, "cannot sync the folder", errno);
  }

  [[nodiscard]] struct stat status(access const& a) const {
    struct stat found {};
    if (::fstat(fd_.get(), &found) != 0) throw failed(a, "cannot look at the folder", errno);
    return found;
  }

  /// Throws if the folder was removed: lookups in it would only report ENOENT.
  void expect_folder(access const& a) const {
    if (status(a).st_nlink == 0) throw failed(a, "the folder was removed", ENOENT);
  }

  [[nodiscard]] error failed(access const& a, std::string_view what, int code) const {
    return detail::store_error(a.call, a.key, text("in ", path_.string(), ": ", what), code);
  }
  [[nodiscard]] error foreign(access const& a, std::string_view what) const {
    return failed(a, text("no store put this: ", what), detail::foreign_entry);
  }

  [[nodiscard]] static std::filesystem::path prepared(std::filesystem::path const& path) {
    expects(!path.empty(), "directory_store: the folder has no name");
    std::error_code code;
    auto absolute = std::filesystem::absolute(path, code);
    if (!code) std::filesystem::create_directories(absolute, code);
    if (code) throw detail::store_error("open", path.string(), "cannot create the folder", code.value());
    return absolute;
  }

  std::filesystem::path path_;
  bool sync_;
  state::detail::descriptor fd_;
  unsigned salt_ = std::random_device{}();
  std::atomic<unsigned long long> drafts_{0};
};

}  // namespace limber::elastic

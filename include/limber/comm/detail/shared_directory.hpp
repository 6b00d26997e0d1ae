// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Files in a directory that the processes of a job share, by which they find each other.

#include <limber/core/error.hpp>

#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>

namespace limber::detail {

[[nodiscard]] inline error file_error(char const* engine, std::string_view what,
                                      std::filesystem::path const& file, std::error_code code) {
  return error(
      {engine, "bootstrap", code.value(), -1, {}, text(what, " '", file.string(), "': ", code.message())});
}

/// Creates `file` by link(2): it appears at once, with all of its content, and only if there is none of its
/// name; false otherwise. @throws limber::error of call "bootstrap"
inline bool create_file(char const* engine, std::filesystem::path const& file, std::string_view content) {
  namespace fs = std::filesystem;
  // Drawn each time: a forked process would repeat a value that its parent drew before.
  std::random_device source;
  fs::path const draft = file.parent_path() / text(file.filename().string().substr(0, 200), ".", source(),
                                                   "-", source(), ".draft");
  {
    std::ofstream out(draft, std::ios::binary);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
    out.close();
    if (!out) throw file_error(engine, "cannot write", draft, std::make_error_code(std::errc::io_error));
  }
  std::error_code failed, ignored;
  fs::create_hard_link(draft, file, failed);
  // Over NFS a successful link may be reported as failed: the link count decides.
  bool const there = !failed || fs::hard_link_count(draft, ignored) == 2;
  fs::remove(draft, ignored);
  if (there) return true;
  if (failed == std::errc::file_exists) return false;
  throw file_error(engine, "the directory needs hard links, and has none for", file, failed);
}

/// The content of `file`, if it can be read.
[[nodiscard]] inline std::optional<std::string> content_of(std::filesystem::path const& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

}  // namespace limber::detail

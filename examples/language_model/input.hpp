// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Mistakes in what the user handed in, and files read so that every such mistake has one clear line.

#include <limber/core/error.hpp>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace example {

/// An argument or a file that cannot be used. The message is one line naming argument and value.
struct bad_input : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// @throws bad_input with `parts` as its message unless `ok`
template <class... Parts>
void require(bool ok, Parts const&... parts) {
  if (!ok) throw bad_input(limber::text(parts...));
}

/// All bytes of a file. `argument` is the option the path came from, for messages.
/// @throws bad_input if the path is missing, a folder, or cannot be read
[[nodiscard]] inline std::string read_file(std::filesystem::path const& path, std::string const& argument) {
  std::error_code why;
  auto const status = std::filesystem::status(path, why);
  require(std::filesystem::exists(status), argument, " ", path.string(), ": ",
          why ? why.message() : "no such file");
  require(!std::filesystem::is_directory(status), argument, " ", path.string(), ": is a folder, not a file");
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  require(in.is_open(), argument, " ", path.string(), ": cannot be opened: ", std::strerror(errno));
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  require(!in.bad(), argument, " ", path.string(), ": cannot be read: ", std::strerror(errno));
  return bytes;
}

}  // namespace example

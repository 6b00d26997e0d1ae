// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Errors of checkpoints, and untrusted names in their messages.

#include <limber/core/error.hpp>

#include <string>
#include <string_view>
#include <system_error>

namespace limber::state {

/// A name for a message: without control characters, and of limited length.
[[nodiscard]] inline std::string printable(std::string_view name) {
  constexpr std::size_t most = 160;
  std::string out;
  for (char const c : name.substr(0, most)) {
    auto const u = static_cast<unsigned char>(c);
    if (u >= 0x20 && u != 0x7f)
      out += c;
    else
      out += {'\\', 'x', "0123456789abcdef"[u >> 4], "0123456789abcdef"[u & 15u]};
  }
  return name.size() > most ? out + "..." : out;
}

namespace detail {

/// Throws: a file is damaged. @param tensor the damaged one, empty if unknown
[[noreturn]] inline void throw_corrupt(std::string const& path, std::string_view tensor,
                                       std::string const& reason) {
  std::string const whose = tensor.empty() ? std::string() : text("tensor '", printable(tensor), "' ");
  throw error({"state", "read", 0, -1, printable(tensor), text(path, ": ", whose, reason)});
}

/// Throws the error of a system call on a path.
[[noreturn]] inline void throw_system_error(std::string_view call, std::string const& path, int code) {
  throw error(
      {"state", std::string(call), code, -1, {}, text(path, ": ", std::generic_category().message(code))});
}

}  // namespace detail
}  // namespace limber::state

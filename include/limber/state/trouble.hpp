// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What errors of this room say, and how they show names that somebody else has written.

#include <limber/core/error.hpp>

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

namespace limber::state {

/// A name as messages show it: nothing that a terminal would obey, and not without end.
[[nodiscard]] inline std::string shown(std::string_view name) {
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

/// A file is not what it should be. @param tensor  the one at fault, empty when none is known
[[noreturn]] inline void corrupt(std::string const& path, std::string_view tensor,
                                 std::string const& reason) {
  std::string const whose = tensor.empty() ? std::string() : text("tensor '", shown(tensor), "' ");
  throw error({"state", "read", 0, -1, shown(tensor), text(path, ": ", whose, reason)});
}

/// The system refused `call` on a path.
[[noreturn]] inline void refused(std::string_view call, std::string const& path, int code) {
  throw error(
      {"state", std::string(call), code, -1, {}, text(path, ": ", std::generic_category().message(code))});
}

}  // namespace detail
}  // namespace limber::state

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Errors of checkpoints, and untrusted text: names in messages, numbers.

#include <limber/core/error.hpp>

#include <charconv>
#include <optional>
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

/// Parses a number of at least 0 exactly as `std::to_string` writes it; empty for any other text.
template <class Integer = i64>
[[nodiscard]] std::optional<Integer> read_count(std::string_view s) noexcept {
  Integer x = 0;
  auto const [end, wrong] = std::from_chars(s.data(), s.data() + s.size(), x);
  if (wrong != std::errc{} || end != s.data() + s.size() || s[0] == '-' || (s.size() > 1 && s[0] == '0'))
    return {};
  return x;
}

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

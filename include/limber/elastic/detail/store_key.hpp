// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Valid keys and values of a store, and the errors of a store.

#include <limber/core/error.hpp>
#include <limber/state/errors.hpp>

#include <cerrno>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>

namespace limber::elastic {

/// Longest key, in characters.
inline constexpr std::size_t store_key_limit = 200;

/// Longest value, in bytes.
inline constexpr std::size_t store_value_limit = std::size_t{1} << 20;

/// Most keys that `list` returns; more are an error.
inline constexpr std::size_t store_list_limit = std::size_t{1} << 15;

namespace detail {

/// Letters, digits, ".", "_" and "-", whatever the locale.
[[nodiscard]] constexpr bool is_safe(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
         c == '-';
}

/// At least one safe character, the first not ".": a part of a key between slashes.
[[nodiscard]] constexpr bool is_safe_name(std::string_view s) noexcept {
  if (s.empty() || s.front() == '.') return false;
  for (char const c : s)
    if (!is_safe(c)) return false;
  return true;
}

[[nodiscard]] constexpr bool is_key(std::string_view s) noexcept {
  if (s.size() > store_key_limit) return false;
  for (;;) {
    std::size_t const slash = s.find('/');
    if (!is_safe_name(s.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    s.remove_prefix(slash + 1);
  }
}

/// @throws std::invalid_argument unless key and value are valid
inline void expect_entry(std::string_view call, std::string_view key, std::string_view value = {}) {
  expects(
      is_key(key), "store: ", call, ": the key \"", state::printable(key), "\" must have 1 to ",
      store_key_limit,
      " letters, digits, '.', '_' or '-', in parts separated by single slashes that do not begin with '.'");
  expects(value.size() <= store_value_limit, "store: ", call, ": the value of \"", key, "\" has ",
          value.size(), " bytes, at most ", store_value_limit, " are allowed");
}

/// The error code of entries that were not written by a store.
inline constexpr int foreign_entry = EBADMSG;

[[nodiscard]] inline error store_error(std::string_view call, std::string_view key, std::string_view what,
                                       int code) {
  std::string reason = text("\"", key, "\": ", what);
  if (code != 0 && code != foreign_entry) reason += ": " + std::generic_category().message(code);
  return error({"store", std::string(call), code, -1, {}, reason});
}

}  // namespace detail
}  // namespace limber::elastic

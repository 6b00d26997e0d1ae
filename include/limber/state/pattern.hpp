// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Name patterns with one '*', which select pieces in options.

#include <limber/core/error.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace limber::state {

/// Pieces named `from` in the checkpoint are named `to` here; the text that matches '*' is kept.
struct renaming {
  std::string from;
  std::string to;
};

namespace detail {

/// The text that matches the '*' of the pattern; empty optional if the name does not match.
[[nodiscard]] inline std::optional<std::string_view> matched(std::string_view pattern,
                                                             std::string_view name) {
  auto const star = pattern.find('*');
  if (star == pattern.npos) return pattern == name ? std::optional(std::string_view()) : std::nullopt;
  std::string_view const head = pattern.substr(0, star), tail = pattern.substr(star + 1);
  if (name.size() < head.size() + tail.size() || !name.starts_with(head) || !name.ends_with(tail)) return {};
  return name.substr(head.size(), name.size() - head.size() - tail.size());
}

[[nodiscard]] inline bool matches_any(std::vector<std::string> const& patterns, std::string_view name) {
  return std::ranges::any_of(patterns, [&](auto const& p) { return matched(p, name).has_value(); });
}

/// The name of a piece here: by the first renaming that matches, or unchanged.
[[nodiscard]] inline std::string renamed(std::vector<renaming> const& all, std::string_view name) {
  for (auto const& r : all)
    if (auto const middle = matched(r.from, name)) {
      std::string out = r.to;
      if (auto const star = out.find('*'); star != out.npos) out.replace(star, 1, *middle);
      return out;
    }
  return std::string(name);
}

inline void check(std::vector<renaming> const& all) {
  for (auto const& r : all) {
    auto const from = std::ranges::count(r.from, '*'), to = std::ranges::count(r.to, '*');
    expects(from <= 1 && from == to, "load: rename {\"", r.from, "\", \"", r.to,
            "\"} must have one '*' on both sides, or none");
  }
}

}  // namespace detail
}  // namespace limber::state

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/error.hpp>

#include <cstdarg>
#include <cstdio>

namespace limber {

namespace detail {

LIMBER_COLD LIMBER_FN std::string join(text_kinds kinds, std::va_list parts) {
  std::string out;
  for (; kinds != 0; kinds >>= 4) {
    char digits[32];
    std::string_view s(digits, 0);
    int used = 0;
    switch (static_cast<text_kind>(kinds & 15)) {
      case text_kind::literal: s = va_arg(parts, char const*); break;
      case text_kind::words: s = *va_arg(parts, std::string const*); break;
      case text_kind::view: {
        auto const v = va_arg(parts, text_view);
        s = {v.data, v.size};
        break;
      }
      case text_kind::character: used = std::snprintf(digits, sizeof digits, "%c", va_arg(parts, int)); break;
      case text_kind::integer:
        used = std::snprintf(digits, sizeof digits, "%lld", va_arg(parts, long long));
        break;
      case text_kind::count:
        used = std::snprintf(digits, sizeof digits, "%llu", va_arg(parts, unsigned long long));
        break;
      case text_kind::real:
        used = std::snprintf(digits, sizeof digits, "%.12g", va_arg(parts, double));
        break;
      case text_kind::address:
        used = std::snprintf(digits, sizeof digits, "%p", va_arg(parts, void const*));
        break;
      case text_kind::end: break;
    }
    if (used > 0) s = {digits, static_cast<std::size_t>(used)};
    out += s;
  }
  return out;
}

LIMBER_COLD LIMBER_FN std::string join(text_kinds kinds, ...) {
  std::va_list parts;
  va_start(parts, kinds);
  std::string out = join(kinds, parts);
  va_end(parts);
  return out;
}

LIMBER_COLD LIMBER_FN void refuse(text_kinds kinds, ...) {
  std::va_list parts;
  va_start(parts, kinds);
  std::string const what = "limber: " + join(kinds, parts);
  va_end(parts);
  throw std::invalid_argument(what);
}

[[nodiscard]] LIMBER_FN std::string describe(failure const& f) {
  std::string out = text("limber: ", f.engine, ": ", f.call, ": ", f.reason);
  if (f.code != 0) out += text(" [code ", f.code, "]");
  if (f.rank >= 0) out += text(" [rank ", f.rank, "]");
  if (!f.bucket.empty()) out += text(" [", f.bucket, "]");
  return out;
}

}  // namespace detail

LIMBER_FN error::error(failure where)
    : std::runtime_error(detail::describe(where)), where_(std::move(where)) {}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/error.hpp>

#include <cstdio>

namespace limber {

namespace detail {

LIMBER_FN std::string join(text_part const* parts, std::size_t n) {
  std::string out;
  for (std::size_t k = 0; k < n; ++k) {
    char digits[32];
    int used = 0;
    switch (parts[k].what) {
      case text_part::kind::words: out += parts[k].words; break;
      case text_part::kind::integer:
        used = std::snprintf(digits, sizeof digits, "%lld", parts[k].integer);
        break;
      case text_part::kind::count: used = std::snprintf(digits, sizeof digits, "%llu", parts[k].count); break;
      case text_part::kind::real: used = std::snprintf(digits, sizeof digits, "%.12g", parts[k].real); break;
      case text_part::kind::address:
        used = std::snprintf(digits, sizeof digits, "%p", parts[k].address);
        break;
    }
    out.append(digits, static_cast<std::size_t>(used));
  }
  return out;
}

LIMBER_FN void refuse(text_part const* parts, std::size_t n) {
  throw std::invalid_argument("limber: " + join(parts, n));
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

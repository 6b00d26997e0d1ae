// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The closing table, and everything as JSON.

#include "session.hpp"

#include <limber/core/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace limber::papers {

/// "[0.9, 1.2]", or nothing for exact rows.
[[nodiscard]] inline std::string interval_of(row const& r) {
  if (!r.interval) return {};
  return text('[', short_number(r.interval->first), ", ", short_number(r.interval->second), ']');
}

/// The table as Markdown: paper, claim, measured, target, holds?
[[nodiscard]] inline std::string table_of(std::vector<row> const& rows) {
  std::string out =
      "| row | paper | claim | measured | 95 % | target | holds? |\n|---|---|---|---|---|---|---|\n";
  for (auto const& r : rows)
    out += text("| ", r.id, " | ", r.paper, " | ", r.claim, " | ", r.measured, " | ", interval_of(r), " | ",
                r.target, " | ", r.holds ? "yes" : "NO", " |\n");
  for (auto const& r : rows)
    if (!r.note.empty()) out += text("\n", r.id, ": ", r.note, "\n");
  return out;
}

[[nodiscard]] inline json json_of(session const& s, double seconds) {
  json out{{"limber", text(LIMBER_VERSION_MAJOR, '.', LIMBER_VERSION_MINOR, '.', LIMBER_VERSION_PATCH)},
           {"data", std::filesystem::path(s.data.source()).filename().string()},
           {"effort", s.how == effort::full    ? "full"
                      : s.how == effort::quick ? "quick"
                                               : "exact"},
           {"seeds", s.seeds},
           {"seconds", seconds}};
  out["rows"] = json::array();
  for (auto const& r : s.rows) {
    json one{{"row", r.id},        {"paper", r.paper},
             {"claim", r.claim},   {"measured", r.measured},
             {"target", r.target}, {"interval", nullptr},
             {"holds", r.holds},   {"exact", r.kind == evidence::exact}};
    if (r.interval) one["interval"] = {number(r.interval->first), number(r.interval->second)};
    if (!r.note.empty()) one["note"] = r.note;
    out["rows"].push_back(std::move(one));
  }
  out["sweeps"] = s.sweeps;
  return out;
}

/// @throws example::bad_input if the file cannot be written
inline void write(std::filesystem::path const& path, std::string const& what) {
  std::ofstream out(path);
  out << what << '\n';
  out.close();
  example::require(!out.fail(), path.string(), ": cannot be written");
}

}  // namespace limber::papers

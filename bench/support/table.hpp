// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Results as a table for people.

#include "results.hpp"

#include <cstdio>
#include <ostream>
#include <string>

namespace limber::bench {

template <class... A>
[[nodiscard]] std::string format(char const* how, A... a) {
  char text[64];
  std::snprintf(text, sizeof text, how, a...);
  return text;
}

[[nodiscard]] inline std::string time_of(double s) {
  if (s < 1e-6) return format("%.3g ns", s * 1e9);
  if (s < 1e-3) return format("%.3g µs", s * 1e6);
  return format("%.3g ms", s * 1e3);
}

/// Writes one Markdown table of all rows that were measured or skipped.
inline void write_table(std::ostream& out, results const& all) {
  out << "\nMedians; cv is the deviation of repetitions over their mean. GB/s: bytes that the task must "
         "move,\n"
         "read and written, over time. Of copy: that over the GB/s of a copy; above 1 where a task reads\n"
         "more than it writes, or finds in cache what it read before. Beside peers: time of the quickest\n"
         "peer of each family over time.\n\n"
         "| case | time | cv | GB/s | of copy | beside peers |\n|---|---:|---:|---:|---:|---:|\n";
  for (auto const& r : all.rows) {
    if (auto const why = all.why_skipped(r.name); !why.empty()) {
      out << "| " << r.name << " | skipped: " << why << " | – | – | – | – |\n";
      continue;
    }
    double const t = all.median(r.name), of_copy = all.of_copy(r);
    if (t == 0 || !all.shows(r)) continue;
    std::string peers;
    for (auto const& [peer, value] : all.beside(r))
      peers += (peers.empty() ? "" : ", ") + format("%.2f", value) + " " + peer->label;
    out << "| " << r.name << " | " << time_of(t) << " | "
        << (all.samples(r.name).size() > 1 ? format("%.1f %%", 100 * all.cv(r.name)) : "–") << " | "
        << format("%.1f", all.speed(r) / 1e9) << " | " << (of_copy > 0 ? format("%.2f", of_copy) : "–")
        << " | " << (peers.empty() ? "–" : peers) << " |\n";
  }
  out << std::flush;
}

}  // namespace limber::bench

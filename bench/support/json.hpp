// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Results in the form of Google Benchmark's JSON, with the ratios as counters.

#include "results.hpp"

#include <cstddef>
#include <ctime>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>
#include <string_view>

namespace limber::bench {

/// `s` as a JSON string.
[[nodiscard]] inline std::string quoted(std::string_view s) {
  std::string out = "\"";
  for (char const c : s) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + '"';
}

/// Writes every repetition, and the median and cv of each row; neither paths nor the host's name.
///
/// @param machine  the machine block, kept line by line
inline void write_json(std::ostream& out, results const& all, std::string const& machine) {
  std::time_t const now = std::time(nullptr);
  char date[32] = "";
  if (std::tm const* const utc = std::gmtime(&now)) std::strftime(date, sizeof date, "%FT%T+00:00", utc);
  out << "{\n  \"context\": {\n    \"date\": " << quoted(date) << ",\n    \"machine\": [";
  std::istringstream lines(machine);
  char const* separator = "";
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    out << separator << "\n      " << quoted(line);
    separator = ",";
  }
  out << "\n    ]\n  },\n  \"benchmarks\": [";
  out << std::setprecision(9);
  separator = "";
  auto entry = [&](row const& r, std::string const& aggregate, double value, auto const& more) {
    auto const n = all.samples(r.name).size();
    out << separator << "\n    {\"name\": " << quoted(aggregate.empty() ? r.name : r.name + "_" + aggregate)
        << ", \"run_name\": " << quoted(r.name) << ", \"repetitions\": " << n << ", \"threads\": 1";
    if (aggregate.empty())
      out << ", \"run_type\": \"iteration\", \"iterations\": 1";
    else
      out << ", \"run_type\": \"aggregate\", \"aggregate_name\": " << quoted(aggregate)
          << ", \"aggregate_unit\": " << (aggregate == "cv" ? "\"percentage\"" : "\"time\"")
          << ", \"iterations\": " << n;
    out << ", \"real_time\": " << value << ", \"cpu_time\": " << value << ", \"time_unit\": \"us\"";
    more();
    out << '}';
    separator = ",";
  };
  for (auto const& r : all.rows) {
    auto const& samples = all.samples(r.name);
    if (samples.empty() || !all.shows(r)) continue;
    auto bytes = [&](double seconds) {
      return [&, seconds] {
        out << ", \"bytes_per_second\": " << static_cast<double>(r.read + r.written) / seconds;
      };
    };
    for (std::size_t i = 0; i < samples.size(); ++i)
      entry(r, "", samples[i] * 1e6, [&] {
        out << ", \"repetition_index\": " << i;
        bytes(samples[i])();
      });
    entry(r, "median", all.median(r.name) * 1e6, [&] {
      bytes(all.median(r.name))();
      if (double const x = all.of_copy(r); x > 0) out << ", \"of_copy\": " << x;
      for (auto const& [peer, value] : all.beside(r))
        out << ", " << quoted("vs_" + peer->family()) << ": " << value;
      for (auto const& [what, n] : all.counters(r.name)) out << ", " << quoted(what) << ": " << n;
    });
    if (samples.size() > 1) entry(r, "cv", all.cv(r.name), [] {});
  }
  out << "\n  ]\n}\n";
}

}  // namespace limber::bench

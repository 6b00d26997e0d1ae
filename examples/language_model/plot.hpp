// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The plot of loss and rate over samples: a data file, and a PNG where gnuplot is installed.

#include "experiment.hpp"
#include "input.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace example {

/// Writes the traces as gnuplot reads them: a block for each variant, its name as the head.
/// @throws bad_input if the file cannot be written
inline void write_data(std::filesystem::path const& path, std::vector<variant_result> const& results) {
  std::ofstream out(path);
  out.precision(9);
  out << "# samples steps workers rate probe_bits\n";
  for (auto const& v : results) {
    out << "\"" << v.name << "\"\n";
    for (auto const& p : v.points) {
      out << p.samples << ' ' << p.steps << ' ' << p.workers << ' ' << p.rate << ' ';
      out << (std::isfinite(p.bits) ? limber::text(p.bits) : "NaN") << '\n';
    }
    out << "\n\n";
  }
  out.close();
  require(!out.fail(), "--out: ", path.string(), " cannot be written");
}

/// What gnuplot is told. Losses far above the level before the first resize are cut off.
[[nodiscard]] inline std::string plot_script(std::filesystem::path const& data,
                                             std::filesystem::path const& image,
                                             std::vector<variant_result> const& results,
                                             std::vector<resize_record> const& resizes,
                                             std::string const& unit) {
  auto const quoted = [](std::string const& text) {
    std::string out = "'";
    for (char const c : text) out += c == '\'' ? std::string("''") : std::string(1, c);
    return out + "'";
  };
  double low = std::numeric_limits<double>::max(), high = 0;
  for (auto const& v : results) {
    for (auto const& p : v.points) {
      low = std::min(low, p.bits);
      bool const started = resizes.empty() ? p.steps > 0 : p.samples >= resizes[0].samples / 4;
      if (started && std::isfinite(p.bits)) high = std::max(high, p.bits);
    }
  }
  high = std::min(high, 3 * low);
  std::string s =
      "set terminal pngcairo size 1100,760 noenhanced\nset output " + quoted(image.string()) + "\n";
  s += "set multiplot layout 2,1\nset grid\nset xrange [0:*]\nset key top right\n";
  for (auto const& r : resizes) {
    std::string const x = limber::text(static_cast<double>(r.samples) / 1000);
    s += "set arrow from first " + x + ", graph 0 to first " + x +
         ", graph 1 nohead dashtype 2 linecolor 'gray40'\n";
    s += limber::text("set label '", r.from, " to ", r.to, " workers' at first ", x,
                      ", graph 0.96 offset 0.5,0\n");
  }
  // Too flat a range would show rounding.
  s += limber::text("set yrange [", 0.95 * low, ":", 1.05 * std::max(high, 1.1 * low), "]\nset ylabel ",
                    quoted("probe loss, " + unit), "\n");
  auto const curves = [&](int column) {
    return limber::text("plot for [i=0:", results.size() - 1, "] ", quoted(data.string()),
                        " index i using ($1/1000):", column,
                        " with lines linewidth 1.5 title columnheader(1)\n");
  };
  s += curves(5) +
       "unset label\nset yrange [0:*]\nset ylabel 'learning rate'\nset xlabel 'thousand samples'\n" +
       curves(4);
  return s + "unset multiplot\n";
}

/// Whether `program` can be found through PATH.
[[nodiscard]] inline bool installed(std::string const& program) {
  char const* const path = std::getenv("PATH");
  std::string_view rest = path ? path : "";
  while (!rest.empty()) {
    auto const end = std::min(rest.find(':'), rest.size());
    auto const candidate = std::filesystem::path(rest.substr(0, end)) / program;
    if (access(candidate.c_str(), X_OK) == 0) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

/// Writes the files into `folder`. @return one line that says where they are
inline std::string plot(std::filesystem::path const& folder, std::string const& stem,
                        std::vector<variant_result> const& results, std::vector<resize_record> const& resizes,
                        std::string const& unit) {
  auto const data = folder / (stem + ".dat"), image = folder / (stem + ".png");
  write_data(data, results);
  auto const finite = [](trace_point const& p) { return std::isfinite(p.bits); };
  if (std::ranges::none_of(results, [&](auto const& v) { return std::ranges::any_of(v.points, finite); })) {
    return "No plot: no loss was finite. Its data: " + data.string();
  }
  if (!installed("gnuplot")) return "No plot: gnuplot is not installed. Its data: " + data.string();
  // An old picture must not pass for a new one.
  std::error_code ignored;
  std::filesystem::remove(image, ignored);
  std::FILE* const gnuplot = popen("gnuplot", "w");
  bool written = gnuplot != nullptr;
  if (gnuplot) {
    auto const script = plot_script(data, image, results, resizes, unit);
    written = std::fwrite(script.data(), 1, script.size(), gnuplot) == script.size();
    written = pclose(gnuplot) == 0 && written && std::filesystem::exists(image);
  }
  if (!written) return "No plot: gnuplot failed. Its data: " + data.string();
  return "Plot of loss and rate: " + image.string() + " (data: " + data.string() + ")";
}

}  // namespace example

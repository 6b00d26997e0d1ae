// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Curves as a data file, and as a picture where gnuplot is installed.

#include "../../examples/language_model/input.hpp"

#include <limber/core/error.hpp>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace limber::papers {

struct curve {
  std::string title;
  std::vector<std::pair<double, double>> points;
};

/// One plot: `name` is its file's stem, `settings` are further lines for gnuplot.
struct figure {
  std::string name;
  std::string title;
  std::string x;
  std::string y;
  std::vector<curve> curves;
  std::string settings{};
  std::string style = "linespoints linewidth 1.5 pointsize 0.6";
};

/// Writes <name>.dat, a block for each curve with its title as the head, and <name>.png.
/// @return the picture's path, or why there is none. @throws example::bad_input if the data cannot be written
inline std::string draw(std::filesystem::path const& folder, figure const& f) {
  auto const data = folder / (f.name + ".dat"), image = folder / (f.name + ".png");
  std::ofstream out(data);
  out.precision(9);
  out << "# " << f.title << "\n# " << f.x << " | " << f.y << '\n';
  std::size_t drawn = 0;
  for (auto const& c : f.curves) {
    out << '"' << c.title << "\"\n";
    for (auto const& [x, y] : c.points) {
      out << x << ' ' << (std::isfinite(y) ? text(y) : "NaN") << '\n';
      drawn += std::isfinite(y) ? 1 : 0;
    }
    out << "\n\n";
  }
  out.close();
  example::require(!out.fail(), "--out: ", data.string(), " cannot be written");
  if (drawn == 0) return "no picture of " + f.name + ": nothing was finite";
  // An old picture must not pass for a new one.
  std::error_code ignored;
  std::filesystem::remove(image, ignored);
  auto const quoted = [](std::string const& s) {
    std::string q = "'";
    for (char const c : s) q += c == '\'' ? std::string("''") : std::string(1, c);
    return q + "'";
  };
  std::string const script =
      text("set terminal pngcairo size 1000,640 noenhanced\nset output ", quoted(image.string()),
           "\nset title ", quoted(f.title), "\nset xlabel ", quoted(f.x), "\nset ylabel ", quoted(f.y),
           "\nset grid\n", f.settings, "plot for [i=0:", f.curves.size() - 1, "] ", quoted(data.string()),
           " index i using 1:2 with ", f.style, " title columnheader(1)\n");
  auto const commands = folder / (f.name + ".gnuplot");
  std::ofstream(commands) << script;
  bool const drawn_now = std::system(("gnuplot " + quoted(commands.string()) + " 2>/dev/null").c_str()) == 0;
  return drawn_now && std::filesystem::exists(image)
             ? image.string()
             : "no picture: gnuplot is missing or failed; data: " + data.string();
}

}  // namespace limber::papers

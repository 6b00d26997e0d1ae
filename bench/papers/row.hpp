// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a paper claims, and what was found.

#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace limber::papers {

/// Whether a row has sampling error.
enum class evidence {
  exact,    ///< a recursion, an identity or a count: holds or does not, on every machine
  sampled,  ///< measured over seeds, with an interval where one is given
};

/// One claim of one paper beside what the library does.
struct row {
  std::string id;        ///< "1a", as rows are selected
  std::string paper;     ///< first author and arXiv number
  std::string claim;     ///< what a faithful implementation must show
  std::string measured;  ///< numbers with their units
  std::string target;    ///< the rule by which `holds` was decided, fixed before measuring
  bool holds = false;
  evidence kind = evidence::exact;
  std::optional<std::pair<double, double>> interval{};  ///< 95 % of the number that `target` is about
  std::string note{};                                   ///< what was tried, where a claim does not hold
};

/// `value` with `digits` digits after the point.
[[nodiscard]] inline std::string fixed_point(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

/// `value` with `digits` significant digits.
[[nodiscard]] inline std::string short_number(double value, int digits = 3) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*g", digits, value);
  return buffer;
}

/// Numbers joined by commas. @param show makes text of one
template <class Range, class Show>
[[nodiscard]] std::string listed(Range const& all, Show show) {
  std::string out;
  for (auto const& v : all) out += (out.empty() ? "" : ", ") + show(v);
  return out;
}

}  // namespace limber::papers

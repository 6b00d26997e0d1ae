// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The ranked table, and what limits each strategy in a sentence.

#include "../language_model/console.hpp"
#include "trial.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ostream>
#include <string>
#include <vector>

namespace example {

/// 1234567 → "1.23M".
[[nodiscard]] inline std::string counted(double x) {
  if (!std::isfinite(x)) return "-";
  char const* const units[] = {"", "k", "M", "G", "T"};
  int u = 0;
  for (; x >= 1000 && u < 4; ++u) x /= 1000;
  return significant(std::round(x * 100) / 100) + units[u];
}

/// What keeps the strategy from being quicker. `fewest`: samples that the most frugal one needs.
[[nodiscard]] inline std::string limit_of(verdict const& v, double fewest) {
  auto const percent = [](double x) { return rounded(100 * x, 0) + " %"; };
  std::string const needs = !std::isfinite(v.samples)   ? "does not reach the target in the samples allowed"
                            : v.samples > 1.25 * fewest ? "needs " + rounded(v.samples / fewest, 1) +
                                                              " times the samples of the most frugal"
                                                        : "";
  std::string where;
  if (v.utilisation >= 0.9)
    where = "workers compute " + percent(v.utilisation) + " of the time";
  else if (v.network >= v.stragglers)
    where = "the network: even the slowest worker waits " + percent(v.network) + " of its time";
  else
    where = "stragglers: the others wait for them " + percent(v.stragglers) + " of their time";
  if (needs.empty()) return where;
  return v.utilisation >= 0.9 ? needs + "; " + where : where + "; " + needs;
}

/// Prints the table.
inline void print(std::vector<verdict> const& ranked, trial_options const& o) {
  double fewest = papers::never;
  for (auto const& v : ranked) fewest = std::min(fewest, v.samples);
  std::printf("\n  %-22s %9s %10s %12s %9s  %s\n", "strategy", "to target", "samples/s", "bytes/sample",
              "eta, mu", "limited by");
  int place = 0;
  for (auto const& v : ranked) {
    std::printf("%2d %-22s %9s %10s %12s %5s,%3s  %s\n", ++place, v.what.name.c_str(),
                std::isfinite(v.seconds) ? (significant(v.seconds) + " s").c_str() : "-",
                counted(v.samples_per_second).c_str(), counted(v.bytes_per_sample).c_str(),
                significant(v.rate).c_str(), significant(v.momentum).c_str(), limit_of(v, fewest).c_str());
  }
  std::printf(
      "\nto target: virtual seconds until the loss of a small classifier is %g, median of %d seeds, each "
      "strategy with "
      "the best of %zu rates and momenta.\nA small task tells how strategies rank on this cluster, not how "
      "long your "
      "model takes.\n",
      o.target, o.seeds, o.rates.size() * o.momenta.size());
}

/// The same for programs.
[[nodiscard]] inline nlohmann::ordered_json as_json(std::vector<verdict> const& ranked) {
  auto const number = [](double x) {
    return std::isfinite(x) ? nlohmann::ordered_json(x) : nlohmann::ordered_json();
  };
  double fewest = papers::never;
  for (auto const& v : ranked) fewest = std::min(fewest, v.samples);
  auto rows = nlohmann::ordered_json::array();
  for (auto const& v : ranked)
    rows.push_back({{"strategy", v.what.name},
                    {"written", v.what.call},
                    {"seconds_to_target", number(v.seconds)},
                    {"samples_to_target", number(v.samples)},
                    {"samples_per_second", number(v.samples_per_second)},
                    {"bytes_per_sample", number(v.bytes_per_sample)},
                    {"utilisation", number(v.utilisation)},
                    {"accuracy", number(v.accuracy)},
                    {"eta", v.rate},
                    {"momentum", v.momentum},
                    {"limited_by", limit_of(v, fewest)}});
  return rows;
}

}  // namespace example

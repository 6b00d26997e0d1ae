// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The closing table, and everything as JSON.

#include "console.hpp"
#include "experiment.hpp"
#include "options.hpp"
#include "sweep.hpp"

#include <limber/core/version.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace example {

/// Prints rows of cells with aligned columns; the first row is the head.
inline void print_table(std::vector<std::vector<std::string>> const& rows) {
  std::vector<std::size_t> width(rows[0].size());
  for (auto const& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  }
  for (auto const& row : rows) {
    std::string line = "  " + row[0] + std::string(width[0] - row[0].size(), ' ');
    for (std::size_t c = 1; c < row.size(); ++c) line += "  " + padded(row[c], width[c]);
    std::printf("%s\n", line.c_str());
  }
}

/// A factor or a loss; "diverged" if it is not finite.
[[nodiscard]] inline std::string shown(double value, int digits) {
  if (!std::isfinite(value)) return "diverged";
  return value < 1e4 ? rounded(value, digits) : significant(value);
}

/// The three variants side by side.
inline void print_results(std::vector<variant_result> const& results,
                          std::vector<resize_record> const& resizes, task const& what) {
  std::vector<std::string> head{"variant", "final " + what.unit};
  if (what.classes) head.emplace_back("accuracy");
  for (auto const& r : resizes) head.push_back(limber::text("spike ", r.from, " to ", r.to));
  for (auto const* column : {"updates", "seconds", "samples/s"}) head.emplace_back(column);
  std::vector<std::vector<std::string>> rows{head};
  for (auto const& v : results) {
    std::vector<std::string> row{v.name, shown(v.final.bits, 3)};
    if (what.classes) row.push_back(rounded(100 * v.final.accuracy, 2) + " %");
    for (std::size_t i = 0; i < resizes.size(); ++i) {
      row.push_back(i < v.resizes.size() ? shown(v.resizes[i].spike(), 3) : "not reached");
    }
    row.push_back(limber::text(v.steps));
    row.push_back(rounded(v.seconds, 1));
    row.push_back(rounded(v.samples_per_second(), 0));
    rows.push_back(row);
  }
  std::printf("\n");
  print_table(rows);
  std::printf(
      "\n  All variants saw the same samples in the same order, from the same first weights, up to one "
      "update's\n"
      "  worth at the end. A spike is the worst loss on %zu fixed held-out samples in the %d updates after "
      "a\n"
      "  resize, over its mean in the %d before; `fixed` is looked at when the others resize.\n",
      what.probe.size(), static_cast<int>(resize_record::after), static_cast<int>(resize_record::before));
}

/// Prints the sweep, one line for each rate and growth.
inline void print_sweep(std::vector<sweep_row> const& rows, task const& what) {
  std::vector<std::vector<std::string>> table{
      {"rate", "growth", "spike immediate", "spike dynamic_sgd", "final immediate", "final dynamic_sgd"}};
  for (auto const& r : rows) {
    table.push_back({limber::text(r.eta), limber::text("x", r.growth), shown(r.immediate.worst_spike, 3),
                     shown(r.dynamic_sgd.worst_spike, 3), shown(r.immediate.final.bits, 3),
                     shown(r.dynamic_sgd.final.bits, 3)});
  }
  std::printf("\n");
  print_table(table);
  std::printf(
      "\n  final: %s on held-out data when the run ends, %d updates after the growth; constant rates.\n",
      what.unit.c_str(), static_cast<int>(rows[0].updates_after));
}

using json = nlohmann::ordered_json;

/// A number, or null if it is not finite, which JSON cannot say.
[[nodiscard]] inline json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

[[nodiscard]] inline json to_json(variant_result const& v, task const& what) {
  json out{{"name", v.name}};
  out[what.classes ? "final_bits_per_sample" : "final_bits_per_byte"] = number(v.final.bits);
  if (what.classes) out["final_accuracy"] = v.final.accuracy;
  out["worst_spike"] = number(v.worst_spike);
  out["samples_per_second"] = v.samples_per_second();
  out["seconds"] = v.seconds;
  out["samples"] = v.samples;
  out["steps"] = v.steps;
  out["diverged"] = !std::isfinite(v.final.bits);
  out["failure"] = v.failure;
  out["spikes"] = json::array();
  for (auto const& r : v.resizes) {
    out["spikes"].push_back({{"samples", r.samples},
                             {"steps", r.steps},
                             {"level", number(r.level)},
                             {"worst", number(r.worst)},
                             {"spike", number(r.spike())}});
  }
  out["trace"] = json::array();
  for (auto const& p : v.points) {
    out["trace"].push_back({{"samples", p.samples},
                            {"steps", p.steps},
                            {"workers", p.workers},
                            {"rate", p.rate},
                            {"probe_bits", number(p.bits)}});
  }
  return out;
}

/// Everything that was measured, with the settings that led to it.
[[nodiscard]] inline json to_json(options const& o, std::string const& source, limber::i64 epoch_size,
                                  task const& what, std::vector<resize_record> const& resizes,
                                  std::vector<variant_result> const& results,
                                  std::vector<sweep_row> const& sweep) {
  json out{
      {"limber", limber::text(LIMBER_VERSION_MAJOR, '.', LIMBER_VERSION_MINOR, '.', LIMBER_VERSION_PATCH)},
      {"data", source},
      {"loss", what.unit}};
  out["settings"] = {{"workers", o.workers},
                     {"steps", o.steps},
                     {"per_worker", o.per_worker},
                     {"eta", o.eta},
                     {"momentum", o.momentum},
                     {"constant", o.constant},
                     {"hidden", o.hidden},
                     {"seed", o.seed},
                     {"smoke", o.smoke},
                     {"epoch_size", epoch_size},
                     {"probe_samples", what.probe.size()},
                     {"held_out_samples", what.held_out.size()},
                     {"level_updates", resize_record::before},
                     {"spike_updates", resize_record::after}};
  out["resizes"] = json::array();
  for (auto const& r : resizes) {
    out["resizes"].push_back({{"samples", r.samples}, {"steps", r.steps}, {"from", r.from}, {"to", r.to}});
  }
  out["variants"] = json::array();
  for (auto const& v : results) out["variants"].push_back(to_json(v, what));
  if (sweep.empty()) return out;
  out["sweep"] = json::array();
  for (auto const& r : sweep) {
    for (auto const* v : {&r.immediate, &r.dynamic_sgd}) {
      out["sweep"].push_back({{"name", v->name},
                              {"eta", r.eta},
                              {"growth", r.growth},
                              {"steps_after", r.updates_after},
                              {"worst_spike", number(v->worst_spike)},
                              {"final_bits", number(v->final.bits)},
                              {"diverged", !std::isfinite(v->final.bits)}});
    }
  }
  return out;
}

/// @throws bad_input if the file cannot be written
inline void write_json(std::filesystem::path const& path, json const& what) {
  std::ofstream out(path);
  out << what.dump(1, ' ', false, json::error_handler_t::replace) << '\n';
  out.close();
  require(!out.fail(), "--json ", path.string(), ": cannot be written");
}

}  // namespace example

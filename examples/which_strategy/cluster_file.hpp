// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A cluster as a person describes it, by flags or in a JSON file.

#include "../language_model/input.hpp"

#include <limber/sim/cluster.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace example {

/// Workers, links and the model, in the units people think in.
///
///     {"speeds": [1000, 1000, 2000, 2000], "per_call": 0.001, "jitter": 0.1,
///      "latency": 50e-6, "bandwidth": 1.25e9, "inside_latency": 5e-6, "inside_bandwidth": 1e11,
///      "block_size": 2, "model_bytes": 1e8, "topology": "ring",
///      "slowdowns": [{"worker": 1, "from": 5, "until": 20, "factor": 3}]}
struct cluster_description {
  std::vector<double> speeds{1000, 1000, 1000, 1000};  ///< samples/s of each worker
  double per_call = 0;                                 ///< seconds that a micro-batch costs besides
  double jitter = 0.05;                                ///< σ of a lognormal factor
  double latency = 50e-6, bandwidth = 1.25e9;          ///< seconds; bytes/s
  double inside_latency = 5e-6, inside_bandwidth = 50e9;
  int block_size = 0;  ///< workers of one machine; 0: no machines
  double model_bytes = 100e6;
  std::string topology = "ring";
  std::vector<limber::sim::slowdown> slowdowns{};
};

/// Most workers that a description may have: each has a model of its own.
inline constexpr std::size_t most_simulated = 1024;

/// @throws bad_input naming what is out of range
inline void check(cluster_description const& c) {
  require(!c.speeds.empty() && c.speeds.size() <= most_simulated, "speeds: 1..", most_simulated,
          " workers are needed, got ", c.speeds.size());
  for (double const s : c.speeds)
    require(std::isfinite(s) && s > 0, "speeds: samples/s must be a number above 0, got ", s);
  auto const at_least_0 = [](char const* what, double x) {
    require(std::isfinite(x) && x >= 0, what, ": must be a number of at least 0, got ", x);
  };
  at_least_0("per_call", c.per_call);
  at_least_0("jitter", c.jitter);
  at_least_0("latency", c.latency);
  at_least_0("inside_latency", c.inside_latency);
  for (double const b : {c.bandwidth, c.inside_bandwidth})
    require(b > 0, "bandwidth: bytes/s must be above 0, got ", b);
  require(c.block_size >= 0, "block_size: must not be negative, got ", c.block_size);
  require(std::isfinite(c.model_bytes) && c.model_bytes > 0, "model_bytes: must be a number above 0, got ",
          c.model_bytes);
  require(c.topology == "ring" || c.topology == "tree" || c.topology == "server",
          "topology: must be ring, tree or server, got '", c.topology, "'");
  for (auto const& s : c.slowdowns)
    require(s.worker >= 0 && static_cast<std::size_t>(s.worker) < c.speeds.size() && s.factor > 0 &&
                s.from >= 0 && s.until > s.from,
            "slowdowns: needs a worker in 0..", c.speeds.size() - 1, ", from < until and a factor above 0");
}

/// Reads a description; what the file leaves out keeps its default.
/// @throws bad_input naming the file and what is wrong with it
[[nodiscard]] inline cluster_description read_cluster(std::filesystem::path const& file) {
  std::ifstream in(file);
  require(in.is_open(), "--cluster ", file.string(), ": cannot be opened");
  cluster_description c;
  try {
    auto const j = nlohmann::json::parse(in);
    require(j.is_object(), "the outermost value must be an object");
    for (auto const& [key, value] : j.items()) {
      if (key == "speeds")
        c.speeds = value.get<std::vector<double>>();
      else if (key == "per_call")
        c.per_call = value;
      else if (key == "jitter")
        c.jitter = value;
      else if (key == "latency")
        c.latency = value;
      else if (key == "bandwidth")
        c.bandwidth = value;
      else if (key == "inside_latency")
        c.inside_latency = value;
      else if (key == "inside_bandwidth")
        c.inside_bandwidth = value;
      else if (key == "block_size")
        c.block_size = value;
      else if (key == "model_bytes")
        c.model_bytes = value;
      else if (key == "topology")
        c.topology = value;
      else if (key == "slowdowns")
        for (auto const& s : value)
          c.slowdowns.push_back(
              {s.at("worker"), s.at("from"), s.value("until", limber::sim::infinite), s.at("factor")});
      else
        require(false, "there is no '", key, "'");
    }
    check(c);
  } catch (bad_input const& e) {
    throw bad_input("--cluster " + file.string() + ": " + e.what());
  } catch (nlohmann::json::exception const& e) {
    throw bad_input("--cluster " + file.string() + ": " + e.what());
  }
  return c;
}

/// The virtual cluster of a description, on which a model of `own_bytes` stands for the described one.
[[nodiscard]] inline limber::sim::cluster virtual_cluster(cluster_description const& c, double own_bytes) {
  limber::sim::cluster out;
  for (double const s : c.speeds)
    out.workers.push_back({.seconds_per_call = c.per_call, .seconds_per_sample = 1 / s, .jitter = c.jitter});
  out.network = {c.latency, c.bandwidth};
  out.inside = {c.inside_latency, c.inside_bandwidth};
  out.block_size = c.block_size;
  out.reduce = c.topology == "ring"   ? limber::sim::topology::ring
               : c.topology == "tree" ? limber::sim::topology::tree
                                      : limber::sim::topology::server;
  out.slowdowns = c.slowdowns;
  out.byte_scale = c.model_bytes / own_bytes;
  return out;
}

}  // namespace example

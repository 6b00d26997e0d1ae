// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What bench/peers/torch_peers.py measured, by the name of the task.

#include <limber/core/error.hpp>

#include <nlohmann/json.hpp>
#include <support/program.hpp>

#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace limber::bench {

/// Rows of PyTorch: repetitions in seconds.
class torch_rows {
 public:
  torch_rows() = default;
  /// @throws std::invalid_argument if the file is not what torch_peers.py writes
  explicit torch_rows(std::string const& path) {
    std::ifstream file(path);
    expects(file.good(), "--torch: '", path, "' cannot be read");
    auto const all = nlohmann::json::parse(file, nullptr, false);
    expects(!all.is_discarded() && all.contains("benchmarks"), "--torch: '", path,
            "' holds no \"benchmarks\"");
    if (all.contains("context")) describe_ = all["context"].value("torch", "");
    for (auto const& b : all["benchmarks"]) {
      if (b.value("run_type", "") != "iteration") continue;
      std::string const name = b.value("run_name", "");
      auto const cut = name.rfind('/');
      expects(cut != std::string::npos, "--torch: '", path, "' has a row named '", name, "'");
      auto& here = rows_[name.substr(0, cut)][name.substr(cut + 1)];
      here.seconds.push_back(b.value("real_time", 0.0) / 1e6);
      here.same_work = b.value("same_work", true);
    }
  }

  /// Adds all rows to the table. What does other work is no peer.
  void add_to(program& all) const {
    for (auto const& [task, rows] : rows_)
      for (auto const& [label, times] : rows)
        all.add_measured(task, label, times.same_work ? role::peer : role::part, times.seconds);
  }

  /// A line for the machine block; empty without PyTorch.
  [[nodiscard]] std::string const& describe() const noexcept { return describe_; }

 private:
  struct samples {
    std::vector<double> seconds;
    bool same_work = true;
  };
  std::map<std::string, std::map<std::string, samples>> rows_;
  std::string describe_;
};

}  // namespace limber::bench

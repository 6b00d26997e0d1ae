// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the rows share: the data, how much time they may take, and where results go.

#include "../../examples/language_model/console.hpp"
#include "figure.hpp"
#include "pool.hpp"
#include "row.hpp"
#include "task.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::papers {

using json = nlohmann::ordered_json;

/// How much is run.
enum class effort {
  exact,  ///< rows without sampling error only; seconds
  quick,  ///< all rows, small sweeps; below 3 minutes on 2 cores
  full,   ///< below 40 minutes on 2 cores
};

/// A number, or null if it is not finite, which JSON cannot say.
[[nodiscard]] inline json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

class session {
 public:
  session(task const& d, effort e, int n, std::vector<std::string> only)
      : data(d), how(e), seeds(n), only_(std::move(only)) {}

  task const& data;
  effort how;
  int seeds;  ///< of sampled rows

  std::vector<row> rows{};
  json sweeps = json::object();
  std::vector<figure> figures{};

  /// Whether row `id` is to be made.
  [[nodiscard]] bool wants(std::string_view id, evidence kind) const {
    if (how == effort::exact && kind == evidence::sampled) return false;
    if (only_.empty()) return true;
    for (auto const& o : only_)
      if (id.starts_with(o)) return true;
    return false;
  }

  [[nodiscard]] bool quick() const noexcept { return how != effort::full; }

  /// One of two settings.
  template <class T>
  [[nodiscard]] T of(T in_quick, T in_full) const {
    return quick() ? std::move(in_quick) : std::move(in_full);
  }

  void add(row r) {
    line_.finish(text(r.id, r.holds ? "  holds  " : "  DOES NOT HOLD  ", r.claim, ": ", r.measured));
    rows.push_back(std::move(r));
  }

  /// Calls job(i) for i in [0, n) on all cores, and shows how far it is.
  void runs(std::string const& what, std::size_t n, std::function<void(std::size_t)> const& job) {
    each_on_all_cores(n, job, [&](std::size_t done) {
      if (line_.due()) line_.show(text(what, ": ", bar(done, n), ' ', done, " of ", n, " runs"));
    });
  }

 private:
  [[nodiscard]] static std::string bar(std::size_t done, std::size_t n) {
    std::string out(20, '.');
    for (std::size_t i = 0; i < 20 * done / n; ++i) out[i] = '#';
    return '[' + out + ']';
  }

  std::vector<std::string> only_;
  example::live_line line_;
};

}  // namespace limber::papers

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The report of a run on the virtual cluster.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace limber::sim {

/// One worker's time and traffic.
///
/// Units    seconds of virtual time; busy + waiting + sleeping is its lifetime.
struct worker_report {
  double started = 0, ended = 0;
  double busy = 0;      ///< in compute()
  double waiting = 0;   ///< in requests, send, recv, listen, shrink and regroup
  double sleeping = 0;  ///< in sleep()
  i64 bytes_sent = 0;   ///< of collectives and messages, times byte_scale; those of a collective are divided
                        ///< equally among its ranks
  i64 messages = 0;     ///< send and post, to others
  i64 operations = 0;   ///< collective operations it took part in
  double samples = 0;   ///< computed
  bool died = false;

  [[nodiscard]] double lifetime() const noexcept { return ended - started; }
};

/// One call of worker::note.
struct noted {
  double time = 0;
  int rank = 0;
  std::string series;
  double value = 0;
};

/// The report of a run. The same cluster and program give the same report, bit for bit.
struct report {
  double seconds = 0;  ///< when the last worker ended
  std::vector<worker_report> workers{};
  std::vector<noted> notes{};    ///< in the order of events
  i64 events = 0;                ///< processed events
  std::uint64_t trace_hash = 0;  ///< of all events and notes

  /// Σ busy / Σ lifetime, in [0, 1]; 1 if all lifetimes are 0.
  [[nodiscard]] double utilisation() const noexcept {
    double busy = 0, lifetime = 0;
    for (auto const& w : workers) {
      busy += w.busy;
      lifetime += w.lifetime();
    }
    return lifetime > 0 ? busy / lifetime : 1;
  }

  [[nodiscard]] i64 bytes() const noexcept {
    i64 sum = 0;
    for (auto const& w : workers) sum += w.bytes_sent;
    return sum;
  }
  [[nodiscard]] double samples() const noexcept {
    double sum = 0;
    for (auto const& w : workers) sum += w.samples;
    return sum;
  }

  /// The notes of a series, of all ranks or of one.
  [[nodiscard]] std::vector<noted> of(std::string_view series, int rank = -1) const {
    std::vector<noted> out;
    for (auto const& n : notes)
      if (n.series == series && (rank < 0 || n.rank == rank)) out.push_back(n);
    return out;
  }
  [[nodiscard]] std::vector<double> values(std::string_view series, int rank = -1) const {
    std::vector<double> out;
    for (auto const& n : of(series, rank)) out.push_back(n.value);
    return out;
  }

  /// How many values of a series lie in [edges[k], edges[k + 1]); those outside are not counted.
  /// @throws std::invalid_argument unless there are two edges or more, in ascending order
  [[nodiscard]] std::vector<i64> histogram(std::string_view series, std::vector<double> const& edges) const {
    expects(edges.size() >= 2, "histogram: at least 2 edges are needed, got ", edges.size());
    for (std::size_t k = 1; k < edges.size(); ++k)
      expects(edges[k - 1] < edges[k], "histogram: edges must ascend, got ", edges[k], " after ",
              edges[k - 1]);
    std::vector<i64> counts(edges.size() - 1);
    for (auto const& n : notes) {
      if (n.series != series || !(n.value >= edges.front() && n.value < edges.back())) continue;
      auto const above = std::upper_bound(edges.begin(), edges.end(), n.value);
      ++counts[static_cast<std::size_t>(above - edges.begin()) - 1];
    }
    return counts;
  }

  /// The first time at which a value of the series is at most `level`; infinity if none is.
  [[nodiscard]] double time_to(std::string_view series, double level) const noexcept {
    for (auto const& n : notes)
      if (n.series == series && n.value <= level) return n.time;
    return std::numeric_limits<double>::infinity();
  }
};

}  // namespace limber::sim

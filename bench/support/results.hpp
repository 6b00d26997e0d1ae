// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The rows of a table, their samples, and what stands beside what.

#include <limber/core/config.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace limber::bench {

/// What a row is in its task.
enum class role {
  subject,  ///< Limber
  peer,     ///< does the same; the quickest of each family stands beside the subject
  part,     ///< does less, or something else; for orientation only
  ceiling,  ///< a copy
};

/// A row of the table. The bytes are those that the task must move, whoever does it.
struct row {
  std::string name;
  std::string task;
  std::string label;
  role as = role::subject;
  i64 read = 0, written = 0;
  std::string copy{};      ///< name of the row of the copy; empty: no copy is a ceiling for this
  bool cpu_time = true;    ///< one thread, that does not wait: what others do on its core does not count
  bool elsewhere = false;  ///< measured by another program; shown beside a subject only

  /// The peer's family: `torch` of torch-fused and torch-foreach.
  [[nodiscard]] std::string family() const { return label.substr(0, label.find('-')); }
};

/// Times of repetitions by row, and the ratios that a table is about.
class results {
 public:
  std::vector<row> rows;

  void add(std::string const& name, double seconds) { times_[name].push_back(seconds); }
  void count(std::string const& name, std::string const& what, double n) { counters_[name][what] = n; }
  void skip(std::string const& name, std::string why) { skipped_[name] = std::move(why); }

  [[nodiscard]] row const* find(std::string const& name) const {
    auto const at = std::ranges::find(rows, name, &row::name);
    return at == rows.end() ? nullptr : &*at;
  }
  [[nodiscard]] std::vector<double> const& samples(std::string const& name) const {
    static std::vector<double> const none;
    auto const at = times_.find(name);
    return at == times_.end() ? none : at->second;
  }
  /// False for a row from elsewhere whose subject was not measured.
  [[nodiscard]] bool shows(row const& r) const { return !r.elsewhere || median(r.task) > 0; }
  /// Why a row has no samples; empty if that is not known.
  [[nodiscard]] std::string why_skipped(std::string const& name) const {
    auto const at = skipped_.find(name);
    return at == skipped_.end() ? "" : at->second;
  }
  /// What a case counted besides time.
  [[nodiscard]] std::map<std::string, double> counters(std::string const& name) const {
    auto const at = counters_.find(name);
    return at == counters_.end() ? std::map<std::string, double>{} : at->second;
  }

  /// Seconds, or 0 where there is no sample.
  [[nodiscard]] double median(std::string const& name) const {
    auto sorted = samples(name);
    if (sorted.empty()) return 0;
    std::ranges::sort(sorted);
    std::size_t const n = sorted.size();
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
  }
  /// Standard deviation over mean, 0 for fewer than two samples.
  [[nodiscard]] double cv(std::string const& name) const {
    auto const& x = samples(name);
    if (x.size() < 2) return 0;
    double mean = 0, squares = 0;
    for (double const t : x) mean += t / static_cast<double>(x.size());
    for (double const t : x) squares += (t - mean) * (t - mean);
    return std::sqrt(squares / static_cast<double>(x.size() - 1)) / mean;
  }
  /// Bytes a second, or 0.
  [[nodiscard]] double speed(row const& r) const {
    double const t = median(r.name);
    return t > 0 ? static_cast<double>(r.read + r.written) / t : 0;
  }
  /// Speed over that of the copy, or 0.
  [[nodiscard]] double of_copy(row const& r) const {
    row const* const copy = find(r.copy);
    double const ceiling = copy == nullptr ? 0 : speed(*copy);
    return ceiling > 0 ? speed(r) / ceiling : 0;
  }

  struct ratio {
    row const* peer;
    double value;  ///< time of the peer over time of the subject
  };
  /// The quickest peer of each family, for a subject that was measured; none for other rows.
  [[nodiscard]] std::vector<ratio> beside(row const& mine) const {
    std::vector<ratio> out;
    double const t = median(mine.name);
    if (mine.as != role::subject || t == 0) return out;
    for (auto const& r : rows) {
      if (r.task != mine.task || r.as != role::peer || median(r.name) == 0) continue;
      ratio const here{&r, median(r.name) / t};
      auto const same =
          std::ranges::find_if(out, [&](ratio const& x) { return x.peer->family() == r.family(); });
      if (same == out.end())
        out.push_back(here);
      else if (here.value < same->value)
        *same = here;
    }
    return out;
  }

 private:
  std::map<std::string, std::vector<double>> times_;
  std::map<std::string, std::map<std::string, double>> counters_;
  std::map<std::string, std::string> skipped_;
};

}  // namespace limber::bench

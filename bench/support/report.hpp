// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The table at the end: medians, each beside a copy and beside its best peer.

#include <limber/core/config.hpp>

#include <benchmark/benchmark.h>
#include <support/machine.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <ostream>
#include <streambuf>
#include <string>
#include <vector>

namespace limber::bench {

/// What a row is in its task.
enum class role {
  subject,  ///< Limber
  peer,     ///< does the same; the quickest stands beside the subject
  part,     ///< does less; for orientation only
  ceiling,  ///< a copy
};

/// A row of the table. The bytes are those that the task must move, whoever does it.
struct row {
  std::string name;
  std::string task;
  role as = role::subject;
  i64 read = 0, written = 0;
  std::string copy{};    ///< name of the row of the copy; empty: no copy is a ceiling for this
  bool cpu_time = true;  ///< one thread, that does not wait: what others do on its core does not count
};

/// Hands medians on to Google Benchmark's own reporter and collects them for the table.
class reporter : public benchmark::BenchmarkReporter {
 public:
  explicit reporter(std::vector<row> rows) : rows_(std::move(rows)) {
    // Its own machine block shows the path of the program.
    console_->SetErrorStream(&nowhere_);
  }

  bool ReportContext(Context const& context) override {
    describe_machine(GetOutputStream(), context.cpu_info);
    return console_->ReportContext(context);
  }

  void ReportRuns(std::vector<Run> const& runs) override {
    std::vector<Run> shown;
    for (auto const& r : runs) {
      if (r.run_type == Run::RT_Aggregate && r.aggregate_name != "median") continue;
      std::string const name = r.run_name.function_name;
      if (r.error_occurred) {
        skipped_[name] = r.error_message;
      } else {
        // The median that Google Benchmark adds to its samples does not move theirs.
        auto const unit = benchmark::GetTimeUnitMultiplier(r.time_unit);
        times_[name].push_back((uses_cpu_time(name) ? r.GetAdjustedCPUTime() : r.GetAdjustedRealTime()) /
                               unit);
      }
      if (r.run_type == Run::RT_Aggregate || runs.size() == 1) shown.push_back(r);
    }
    if (!shown.empty()) console_->ReportRuns(shown);
  }

  void Finalize() override {
    console_->Finalize();
    table();
  }

 private:
  struct silence : std::streambuf {
    int overflow(int c) override { return c; }
  };

  [[nodiscard]] bool uses_cpu_time(std::string const& name) const {
    auto const at = std::ranges::find(rows_, name, &row::name);
    return at != rows_.end() && at->cpu_time;
  }
  /// Seconds, or 0 where there is no sample.
  [[nodiscard]] double median(std::string const& name) const {
    auto const at = times_.find(name);
    if (at == times_.end()) return 0;
    auto sorted = at->second;
    std::ranges::sort(sorted);
    std::size_t const n = sorted.size();
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
  }
  [[nodiscard]] double speed(row const& r) const {
    double const t = median(r.name);
    return t > 0 ? static_cast<double>(r.read + r.written) / t : 0;
  }
  [[nodiscard]] std::string of_copy(row const& r) const {
    auto const at = std::ranges::find(rows_, r.copy, &row::name);
    if (at == rows_.end() || speed(*at) == 0) return "–";
    return format("%.2f", speed(r) / speed(*at));
  }
  [[nodiscard]] std::string beside_peer(row const& mine) const {
    if (mine.as != role::subject) return "–";
    row const* best = nullptr;
    for (auto const& r : rows_)
      if (r.task == mine.task && r.as == role::peer && median(r.name) > 0)
        if (best == nullptr || median(r.name) < median(best->name)) best = &r;
    if (best == nullptr) return "–";
    return format("%.2f", median(best->name) / median(mine.name)) + " " +
           best->name.substr(best->name.rfind('/') + 1);
  }

  template <class... A>
  [[nodiscard]] static std::string format(char const* how, A... a) {
    char text[64];
    std::snprintf(text, sizeof text, how, a...);
    return text;
  }
  [[nodiscard]] static std::string time_of(double s) {
    if (s < 1e-6) return format("%.3g ns", s * 1e9);
    if (s < 1e-3) return format("%.3g µs", s * 1e6);
    return format("%.3g ms", s * 1e3);
  }

  void table() {
    auto& out = GetOutputStream();
    out << "\nMedians. GB/s: bytes that the task must move, read and written, over time. Of copy: that over\n"
           "the GB/s of a copy in as much memory; above 1 where a task reads more than it writes, or finds "
           "in\n"
           "cache what it read before. Beside peer: time of the quickest peer over time.\n\n"
           "| case | time | GB/s | of copy | beside peer |\n|---|---:|---:|---:|---:|\n";
    for (auto const& r : rows_) {
      if (auto const why = skipped_.find(r.name); why != skipped_.end())
        out << "| " << r.name << " | skipped: " << why->second << " | – | – | – |\n";
      else if (double const t = median(r.name); t > 0)
        out << "| " << r.name << " | " << time_of(t) << " | " << format("%.1f", speed(r) / 1e9) << " | "
            << of_copy(r) << " | " << beside_peer(r) << " |\n";
    }
    out << std::flush;
  }

  std::vector<row> rows_;
  std::map<std::string, std::vector<double>> times_;
  std::map<std::string, std::string> skipped_;
  silence nothing_;
  std::ostream nowhere_{&nothing_};
  std::unique_ptr<benchmark::BenchmarkReporter> console_{benchmark::CreateDefaultDisplayReporter()};
};

}  // namespace limber::bench

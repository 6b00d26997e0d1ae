// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Takes the runs of Google Benchmark into `results`, and shows their medians while they come.

#include <benchmark/benchmark.h>
#include <support/machine.hpp>
#include <support/results.hpp>
#include <support/table.hpp>

#include <memory>
#include <ostream>
#include <sstream>
#include <streambuf>
#include <string>
#include <utility>
#include <vector>

namespace limber::bench {

/// Hands medians on to Google Benchmark's own reporter and collects all repetitions for the table.
class reporter : public benchmark::BenchmarkReporter {
 public:
  /// @param device  lines for the machine block, about what else takes part
  reporter(results& into, std::string device) : into_(into), device_(std::move(device)) {
    // Its own machine block shows the path of the program.
    console_->SetErrorStream(&nowhere_);
  }

  bool ReportContext(Context const& context) override {
    std::ostringstream block;
    describe_machine(block, context.cpu_info, device_);
    machine_ = block.str();
    GetOutputStream() << machine_ << '\n';
    return console_->ReportContext(context);
  }

  void ReportRuns(std::vector<Run> const& runs) override {
    std::vector<Run> shown;
    for (auto const& r : runs) {
      std::string const name = r.run_name.function_name;
      bool const aggregate = r.run_type == Run::RT_Aggregate;
      if (aggregate && r.aggregate_name != "median") continue;
      if (aggregate || runs.size() == 1) shown.push_back(r);
      if (r.error_occurred) {
        into_.skip(name, r.error_message);
      } else if (!aggregate) {
        row const* const mine = into_.find(name);
        bool const cpu = mine != nullptr && mine->cpu_time;
        into_.add(name, (cpu ? r.GetAdjustedCPUTime() : r.GetAdjustedRealTime()) /
                            benchmark::GetTimeUnitMultiplier(r.time_unit));
        for (auto const& [what, value] : r.counters)
          if (what != "bytes_per_second") into_.count(name, what, value);
      }
    }
    if (!shown.empty()) console_->ReportRuns(shown);
  }

  void Finalize() override {
    console_->Finalize();
    write_table(GetOutputStream(), into_);
  }

  [[nodiscard]] std::string const& machine() const noexcept { return machine_; }

 private:
  struct silence : std::streambuf {
    int overflow(int c) override { return c; }
  };

  results& into_;
  std::string device_, machine_;
  silence nothing_;
  std::ostream nowhere_{&nothing_};
  std::unique_ptr<benchmark::BenchmarkReporter> console_{benchmark::CreateDefaultDisplayReporter()};
};

}  // namespace limber::bench

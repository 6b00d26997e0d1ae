// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the main function of a bench is made of.
///
///     int main(int argc, char** argv) {
///       bench::program p(argc, argv);
///       bench::task const sum{.name = "host/sum/f32", .read = 8 * n, .written = 4 * n, .memory = 12 * n};
///       p.add(sum, "limber", bench::role::subject, [](benchmark::State& state) { … });
///       p.add(sum, "loop", bench::role::peer, [](benchmark::State& state) { … });
///       return p.run();
///     }
///
/// The copy beside a task is added by itself: memcpy from one half of `memory` to the other; unless the task
/// names another row, added before, as its copy. With `--out=STEM` the report also goes to STEM.md and
/// STEM.json.

#include <limber/core/tensor.hpp>

#include <benchmark/benchmark.h>
#include <support/arena.hpp>
#include <support/json.hpp>
#include <support/report.hpp>

#include <charconv>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace limber::bench {

/// A job that several rows do.
struct task {
  std::string name;          ///< a path, such as host/sgd/f32/flat
  i64 read = 0;              ///< bytes that must be read in one iteration
  i64 written = 0;           ///< and written
  i64 memory = 0;            ///< bytes of all arrays together, taken from the arena
  int threads = 1;           ///< that work at the same time
  bool has_ceiling = true;   ///< a copy is what bounds it
  bool manual_time = false;  ///< the body calls SetIterationTime
  std::string copy{};        ///< name of the row of its copy, where that is not memcpy
};

class program {
 public:
  /// Defaults that arguments of Google Benchmark override. A --benchmark_min_time of at most 0.001 is no
  /// measurement: the program is `quick` then, with one repetition and lists a 64th in size.
  program(int argc, char** argv) {
    constexpr std::string_view flag = "--benchmark_min_time=", out = "--out=";
    for (int i = 0; i < argc; ++i) {
      std::string_view const a = argv[i];
      if (a.starts_with(out))
        stem_ = a.substr(out.size());
      else
        given_.push_back(argv[i]);
      if (a.starts_with(flag)) {
        double seconds = 1;
        std::from_chars(a.data() + flag.size(), a.data() + a.size(), seconds);
        quick_ = seconds <= 0.001;
      }
    }
  }

  [[nodiscard]] bool quick() const noexcept { return quick_; }

  /// Lines for the machine block, about what else takes part; the heading of STEM.md; what is written
  /// below the table.
  std::string device, heading = "Measured";
  std::function<void(std::ostream&, results const&)> afterwards{};
  int repetitions = 9;

  /// Adds a row: body(state) runs the loop of Google Benchmark. The arena is cleared before. Without a
  /// label the row has the name of its task.
  template <class Body>
  void add(task const& t, std::string const& label, role as, Body body) {
    add(row_of(t, label, as), t.memory, t.manual_time, std::move(body));
  }

  /// Adds a row that another program has measured, in seconds, behind the others of its task. A task that
  /// nobody has added is left out.
  void add_measured(std::string const& task, std::string const& label, role as,
                    std::vector<double> const& seconds) {
    auto& rows = results_.rows;
    auto const subject = std::ranges::find(rows, task, &row::name);
    if (subject == rows.end()) return;
    row r = *subject;
    r.name = task + "/" + label;
    r.label = label;
    r.as = as;
    r.elsewhere = true;
    for (double const s : seconds) results_.add(r.name, s);
    auto const last = std::ranges::find(rows.rbegin(), rows.rend(), task, &row::task);
    rows.insert(last.base(), std::move(r));
  }

  [[nodiscard]] bool has(std::string const& row) const { return results_.find(row) != nullptr; }

  [[nodiscard]] int run() {
    std::vector<std::string> defaults{"--benchmark_min_time=0.02",
                                      text("--benchmark_repetitions=", quick_ ? 1 : repetitions),
                                      quick_ ? "--benchmark_enable_random_interleaving=false"
                                             : "--benchmark_enable_random_interleaving=true"};
    std::vector<char*> arguments(given_.begin(), given_.begin() + 1);
    for (auto& d : defaults) arguments.push_back(d.data());
    arguments.insert(arguments.end(), given_.begin() + 1, given_.end());
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
    reporter out(results_, device);
    // For output that a program reads (json, csv) the table would be in the way.
    bool plain = false;
    for (std::string_view const a : given_)
      plain = plain || (a.starts_with("--benchmark_format=") && !a.ends_with("=console"));
    if (plain)
      benchmark::RunSpecifiedBenchmarks();
    else
      benchmark::RunSpecifiedBenchmarks(&out);
    benchmark::Shutdown();
    if (!plain && afterwards) afterwards(std::cout, results_);
    return stem_.empty() || write(out.machine()) ? 0 : 1;
  }

 private:
  [[nodiscard]] row row_of(task const& t, std::string const& label, role as) {
    std::string const copy = !t.copy.empty() ? t.copy : t.has_ceiling ? add_copy(t) : "";
    return {label.empty() ? t.name : t.name + "/" + label,
            t.name,
            label,
            as,
            t.read,
            t.written,
            copy,
            t.threads == 1 && !t.manual_time};
  }

  // STEM.md and STEM.json; false, with a line, if they cannot be written.
  [[nodiscard]] bool write(std::string const& machine) const {
    std::ofstream table(stem_ + ".md"), json(stem_ + ".json");
    table << "# " << heading << "\n\n```\n" << machine << "```\n";
    write_table(table, results_);
    if (afterwards) afterwards(table, results_);
    write_json(json, results_, machine);
    table.flush();
    json.flush();
    if (table && json) return true;
    std::cerr << "limber: " << stem_ << ".md and " << stem_ << ".json cannot be written\n";
    return false;
  }

  template <class Body>
  void add(row r, i64 memory, bool manual_time, Body body) {
    arena::shared().reserve(memory + 64 * arena::line);
    auto* const made = benchmark::RegisterBenchmark(
        r.name.c_str(), [body, bytes = r.read + r.written](benchmark::State& state) {
          arena::shared().clear();
          body(state);
          state.SetBytesProcessed(bytes * static_cast<i64>(state.iterations()));
        });
    if (manual_time)
      made->UseManualTime();
    else if (!r.cpu_time)
      made->UseRealTime();
    made->Unit(benchmark::kMicrosecond);
    results_.rows.push_back(std::move(r));
  }

  std::string add_copy(task const& t) {
    i64 const half = t.memory / 2;
    std::string const name = text("host-", t.threads, "/copy/", t.memory >> 10, "KiB");
    if (has(name)) return name;
    add({name, name, "", role::ceiling, half, half, "", t.threads == 1}, t.memory, false,
        [half, threads = t.threads](benchmark::State& state) {
          auto const from = arena::shared().take<std::byte>(half), to = arena::shared().take<std::byte>(half);
          for (auto _ : state) {
            i64 const share = half / threads;
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) if (threads > 1)
#endif
            for (int k = 0; k < threads; ++k)
              std::memcpy(to.data() + k * share, from.data() + k * share, static_cast<std::size_t>(share));
            benchmark::ClobberMemory();
          }
        });
    return name;
  }

  std::vector<char*> given_;
  bool quick_ = false;
  std::string stem_;
  results results_;
};

}  // namespace limber::bench

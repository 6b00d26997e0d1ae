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
/// The copy beside a task is added by itself: memcpy from one half of `memory` to the other.

#include <limber/core/tensor.hpp>

#include <benchmark/benchmark.h>
#include <support/arena.hpp>
#include <support/report.hpp>

#include <charconv>
#include <cstring>
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
};

class program {
 public:
  /// Defaults that arguments of Google Benchmark override. A --benchmark_min_time of at most 0.001 is no
  /// measurement: the program is `quick` then, with one repetition and lists a 64th in size.
  program(int argc, char** argv) : given_(argv, argv + argc) {
    constexpr std::string_view flag = "--benchmark_min_time=";
    for (std::string_view const a : given_)
      if (a.starts_with(flag)) {
        double seconds = 1;
        std::from_chars(a.data() + flag.size(), a.data() + a.size(), seconds);
        quick_ = seconds <= 0.001;
      }
  }

  [[nodiscard]] bool quick() const noexcept { return quick_; }

  /// Adds a row: body(state) runs the loop of Google Benchmark. The arena is cleared before.
  template <class Body>
  void add(task const& t, std::string const& label, role as, Body body) {
    std::string const copy = t.has_ceiling ? add_copy(t) : "";
    add({t.name + "/" + label, t.name, as, t.read, t.written, copy, t.threads == 1 && !t.manual_time},
        t.memory, t.manual_time, std::move(body));
  }

  [[nodiscard]] int run() {
    std::vector<std::string> defaults{"--benchmark_min_time=0.02",
                                      quick_ ? "--benchmark_repetitions=1" : "--benchmark_repetitions=9",
                                      quick_ ? "--benchmark_enable_random_interleaving=false"
                                             : "--benchmark_enable_random_interleaving=true"};
    std::vector<char*> arguments(given_.begin(), given_.begin() + 1);
    for (auto& d : defaults) arguments.push_back(d.data());
    arguments.insert(arguments.end(), given_.begin() + 1, given_.end());
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
    reporter out(rows_);
    // For output that a program reads (json, csv) the table would be in the way.
    bool plain = false;
    for (std::string_view const a : given_)
      plain = plain || (a.starts_with("--benchmark_format=") && !a.ends_with("=console"));
    if (plain)
      benchmark::RunSpecifiedBenchmarks();
    else
      benchmark::RunSpecifiedBenchmarks(&out);
    benchmark::Shutdown();
    return 0;
  }

 private:
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
    rows_.push_back(std::move(r));
  }

  std::string add_copy(task const& t) {
    i64 const half = t.memory / 2;
    std::string const name = text("host-", t.threads, "/copy/", t.memory >> 10, "KiB");
    if (std::ranges::find(rows_, name, &row::name) != rows_.end()) return name;
    add({name, name, role::ceiling, half, half, "", t.threads == 1}, t.memory, false,
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
  std::vector<row> rows_;
};

}  // namespace limber::bench

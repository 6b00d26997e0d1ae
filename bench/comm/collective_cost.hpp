// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a call costs over the same call of the engine made directly: interleaved pairs, medians, a table.
///
///     cost_options const how = cost_options_of(argc, argv);
///     cost_table table(how, rank, "gloo, 2 processes");
///     for (std::size_t const bytes : cost_sizes)
///       table.add({"all_reduce", "blocking", bytes}, settle, direct, limber);     // on all ranks alike
///     return table.finish();
///
/// Choices  Before each call, untimed, all ranks leave a barrier, so that what one kind of call leaves
///          behind is not added to the other. In every second pair the order is turned round. Rank 0's
///          times count. A row is within its bound if the medians differ by at most 3 % + 1 µs. A case
///          that is added several times is one row: where processes and threads of one start happen to
///          lie is part of what scatters, so a bench may start anew for a part of its pairs. A case of mode
///          "control" compares the direct call with itself, and shows what these machines can tell apart.
///          "more CPU" is the calling thread's time, in the mean: where calls sleep it scatters far less.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::bench {

struct cost_options {
  int pairs = 2000;    ///< of calls up to 4 MB; a fiftieth of them above
  int starts = 1;      ///< the pairs are spread over so many starts of the processes
  bool quick = false;  ///< no measurement, only a proof that it runs
  std::string out{};   ///< the table also goes to this file, if one is named
  bool bounded = true;
};

/// `--pairs=N`, `--starts=N`, `--out=STEM` (STEM.md); `--benchmark_min_time=0.001`, as all benches, for a
/// quick run.
[[nodiscard]] inline cost_options cost_options_of(int argc, char** argv, int starts = 1) {
  cost_options how{.starts = starts};
  for (int i = 1; i < argc; ++i) {
    std::string_view const a = argv[i];
    if (a.starts_with("--pairs=")) how.pairs = std::max(2, std::atoi(argv[i] + 8));
    if (a.starts_with("--starts=")) how.starts = std::max(1, std::atoi(argv[i] + 9));
    if (a.starts_with("--out=")) how.out = std::string(a.substr(6)) + ".md";
    if (a == "--benchmark_min_time=0.001") how.quick = true;
  }
  if (how.quick) how.pairs = 4, how.starts = std::min(how.starts, 2);
  return how;
}

/// 1 kB … 4 MB, and 64 MB, which is reported without a bound.
inline constexpr std::size_t cost_sizes[] = {1u << 10,   4u << 10, 16u << 10, 64u << 10,
                                             256u << 10, 1u << 20, 4u << 20,  64u << 20};
inline constexpr std::size_t bounded_size = 4u << 20;

struct cost_case {
  std::string call, mode;
  std::size_t bytes = 0;
  friend bool operator==(cost_case const&, cost_case const&) = default;
};

class cost_table {
 public:
  cost_table(cost_options how, int rank, std::string title)
      : how_(std::move(how)), rank_(rank), title_(std::move(title)) {}

  /// Each function is called equally often on all ranks.
  template <class Settle, class Direct, class Limber>
  void add(cost_case const& c, Settle&& settle, Direct&& direct, Limber&& limber) {
    if (how_.quick && c.bytes > bounded_size) return;
    int const pairs = std::max(2, how_.pairs / how_.starts / (c.bytes > bounded_size ? 50 : 1));
    measured& m = place_of(c);
    int const warm = std::min(pairs, 50);
    if (rank_ == 0) std::fprintf(stderr, "%s %s %zu\n", c.call.c_str(), c.mode.c_str(), c.bytes);
    for (int k = -warm; k < pairs; ++k) {
      for (bool const first : {true, false}) {
        bool const directly = first == (k % 2 == 0);
        settle();
        double const cpu = thread_seconds();
        auto const start = std::chrono::steady_clock::now();
        if (directly)
          direct();
        else
          limber();
        std::chrono::duration<double, std::micro> const took = std::chrono::steady_clock::now() - start;
        if (k < 0) continue;
        (directly ? m.direct : m.limber).push_back(took.count());
        m.more_cpu += (directly ? -1e6 : 1e6) * (thread_seconds() - cpu);
      }
    }
  }

  /// 0, or 1 if a row is beyond its bound (never in a quick run).
  [[nodiscard]] int finish() {
    line("Cost over the same call made directly (" + title_ + "): medians of interleaved pairs");
    line("");
    line("| call | mode | bytes | pairs | direct µs | limber µs | more µs | more % | more CPU µs | bound |");
    line("|:--|:--|--:|--:|--:|--:|--:|--:|--:|:--|");
    for (measured const& m : rows_)
      row(m.what, static_cast<int>(m.direct.size()), median(m.direct), median(m.limber),
          m.more_cpu / static_cast<double>(m.direct.size()));
    if (rank_ == 0 && !how_.out.empty()) std::ofstream(how_.out) << text_;
    return beyond_ && !how_.quick ? 1 : 0;
  }

 private:
  struct measured {
    cost_case what;
    std::vector<double> direct, limber;
    double more_cpu = 0;
  };

  [[nodiscard]] static double thread_seconds() {
    timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }
  measured& place_of(cost_case const& c) {
    auto const there = std::ranges::find(rows_, c, &measured::what);
    return there != rows_.end() ? *there
                                : rows_.emplace_back(measured{.what = c, .direct = {}, .limber = {}});
  }
  [[nodiscard]] static double median(std::vector<double> v) {
    auto const middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
    std::nth_element(v.begin(), middle, v.end());
    return *middle;
  }
  void row(cost_case const& c, int pairs, double direct, double limber, double more_cpu) {
    bool const bounded = how_.bounded && c.bytes <= bounded_size && c.mode != "control",
               within = limber - direct <= 0.03 * direct + 1;
    beyond_ = beyond_ || (bounded && !within);
    char words[256], cpu[32] = "";
    // Otherwise other threads work for this one.
    if (c.mode != "non-blocking") std::snprintf(cpu, sizeof cpu, "%+.1f", more_cpu);
    std::snprintf(words, sizeof words, "| %s | %s | %zu | %d | %.1f | %.1f | %+.1f | %+.1f | %s | %s |",
                  c.call.c_str(), c.mode.c_str(), c.bytes, pairs, direct, limber, limber - direct,
                  100 * (limber / direct - 1), cpu,
                  how_.quick ? "not judged"
                  : !bounded ? "none"
                  : within   ? "within 3 % + 1 µs"
                             : "BEYOND 3 % + 1 µs");
    line(words);
  }
  void line(std::string const& words) {
    text_ += words + "\n";
    if (rank_ != 0) return;
    std::printf("%s\n", words.c_str());
    std::fflush(stdout);
  }

  cost_options how_;
  int rank_;
  std::string title_;
  std::vector<measured> rows_;
  bool beyond_ = false;
  std::string text_;
};

}  // namespace limber::bench

// SPDX-License-Identifier: Apache-2.0

/// @file
/// all_reduce between threads, per operation the maximum over ranks of the time from its start to the end
/// of its wait; ranks leave a barrier before each, untimed.
///
///     comm/all_reduce/f32-90000/ranks-4/limber
///
/// Bytes    all inputs are read and all outputs written: 2 × ranks × elements × size of an element. (Not the
///          bus bandwidth of rings: nothing goes over a bus.)
/// Rows     limber     threads::communicator
///          serial     one thread adds all inputs in rank order and copies the sum to every output: no thread
///                     is woken, nobody waits (peer)
/// Choices  8 doubles have neither copy nor peer beside them: what they cost is waking threads, not memory.
///          With more ranks than cores the time of an operation holds the turns of all ranks on the cores.

#include <limber/comm/threads.hpp>

#include <benchmark/benchmark.h>
#include <support/program.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace limber::bench {
namespace {

template <class T>
struct memory {
  std::vector<std::span<T>> in, out;
  memory(int ranks, i64 n) {
    for (int r = 0; r < ranks; ++r) {
      in.push_back(arena::shared().take<T>(n));
      out.push_back(arena::shared().take<T>(n));
      std::ranges::fill(in.back(), static_cast<T>(r + 1));
    }
  }
};

template <class T>
void by_threads(benchmark::State& state, int ranks, i64 n) {
  using clock = std::chrono::steady_clock;
  memory<T> m(ranks, n);
  // Threads are started once for a batch of operations, outside the timed section.
  auto const batch = std::max<i64>(1, std::min<i64>(64, (i64{4} << 20) / (n * ranks)));
  std::vector<std::vector<double>> seconds(static_cast<std::size_t>(ranks),
                                           std::vector<double>(static_cast<std::size_t>(batch)));
  while (state.KeepRunningBatch(batch)) {
    threads::run(ranks, [&](threads::communicator& comm) {
      auto const r = static_cast<std::size_t>(comm.rank());
      for (auto& s : seconds[r]) {
        comm.barrier();
        auto const start = clock::now();
        comm.all_reduce(const_view(m.in[r]), view(m.out[r])).wait();
        s = std::chrono::duration<double>(clock::now() - start).count();
      }
    });
    double sum = 0;
    for (std::size_t k = 0; k < static_cast<std::size_t>(batch); ++k) {
      double longest = 0;
      for (auto const& s : seconds) longest = std::max(longest, s[k]);
      sum += longest;
    }
    state.SetIterationTime(sum);
  }
  auto const expected = static_cast<T>(ranks * (ranks + 1) / 2);
  for (auto const& o : m.out)
    if (o.front() != expected || o.back() != expected) state.SkipWithError("the sum is wrong");
}

template <class T>
void serially(benchmark::State& state, int ranks, i64 n) {
  memory<T> m(ranks, n);
  for (auto _ : state) {
    T* __restrict const sum = m.out[0].data();
    std::memcpy(sum, m.in[0].data(), m.in[0].size_bytes());
    for (std::size_t r = 1; r < m.in.size(); ++r) {
      T const* __restrict const x = m.in[r].data();
      for (i64 i = 0; i < n; ++i) sum[i] += x[i];
    }
    for (std::size_t r = 1; r < m.out.size(); ++r) std::memcpy(m.out[r].data(), sum, m.out[r].size_bytes());
    benchmark::ClobberMemory();
  }
}

template <class T>
void add_case(program& all, std::string const& name, i64 n, int ranks) {
  i64 const bytes = n * ranks * static_cast<i64>(sizeof(T));
  task t{.name = text("comm/all_reduce/", name, "/ranks-", ranks),
         .read = bytes,
         .written = bytes,
         .memory = 2 * bytes + 2 * ranks * arena::line,
         .threads = 1,
         .has_ceiling = n > 8,
         .manual_time = true};
  all.add(t, "limber", role::subject, [=](benchmark::State& state) { by_threads<T>(state, ranks, n); });
  t.manual_time = false;
  all.add(t, "serial", n > 8 ? role::peer : role::part,
          [=](benchmark::State& state) { serially<T>(state, ranks, n); });
}

}  // namespace
}  // namespace limber::bench

int main(int argc, char** argv) {
  using namespace limber;
  bench::program all(argc, argv);
  i64 const scale = all.quick() ? 64 : 1;
  for (int const ranks : {2, 4, 16, 64}) {
    bench::add_case<double>(all, "f64-8", 8, ranks);
    bench::add_case<float>(all, "f32-90000", 90'000 / scale, ranks);
    bench::add_case<float>(all, "f32-4Mi", (i64{4} << 20) / scale, ranks);
  }
  return all.run();
}

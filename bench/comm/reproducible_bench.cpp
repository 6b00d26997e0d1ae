// SPDX-License-Identifier: Apache-2.0

/// @file
/// all_reduce between threads with bits that depend on nothing but the values, beside the plain one: per
/// operation the maximum over ranks of the time from its start to the end of its wait; ranks leave a barrier
/// before each, untimed.
///
///     comm/reproducible/f32-90000/ranks-4/limber
///
/// Bytes    of the plain sum: all inputs are read and all outputs written, 2 × ranks × elements × size.
/// Rows     limber     reproducible<threads::communicator&>
///          plain      threads::communicator (peer)
/// Below    the bytes that a rank hands to the engine for one sum of each, counted.

#include <limber/comm/reproducible.hpp>
#include <limber/comm/threads.hpp>

#include <benchmark/benchmark.h>
#include <support/program.hpp>

#include <algorithm>
#include <chrono>
#include <ostream>
#include <span>
#include <string>
#include <vector>

namespace limber::bench {
namespace {

/// An engine that counts the bytes of its operations.
struct counting {
  threads::communicator& inner;
  i64& bytes;

  int rank() const { return inner.rank(); }
  int size() const { return inner.size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    bytes += in.bytes();
    return inner.all_reduce(in, out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return inner.reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return inner.all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return inner.broadcast(data, root); }
  void barrier() { inner.barrier(); }
};

template <class T>
T value(float x) {
  return static_cast<T>(x);
}

template <class T, bool reproducibly>
void sums(benchmark::State& state, int ranks, i64 n) {
  using clock = std::chrono::steady_clock;
  std::vector<std::span<T>> in, out;
  for (int r = 0; r < ranks; ++r) {
    in.push_back(arena::shared().take<T>(n));
    out.push_back(arena::shared().take<T>(n));
    std::ranges::fill(in.back(), value<T>(static_cast<float>(r + 1)));
  }
  // Threads are started, and memory is allocated, once for a batch of operations, outside the timed section.
  auto const batch = std::max<i64>(2, std::min<i64>(64, (i64{4} << 20) / (n * ranks)));
  std::vector<std::vector<double>> seconds(static_cast<std::size_t>(ranks),
                                           std::vector<double>(static_cast<std::size_t>(batch)));
  while (state.KeepRunningBatch(batch)) {
    threads::run(ranks, [&](threads::communicator& engine) {
      auto const r = static_cast<std::size_t>(engine.rank());
      auto measure = [&](auto& comm) {
        comm.all_reduce(const_view(in[r]), view(out[r])).wait();
        for (auto& s : seconds[r]) {
          comm.barrier();
          auto const start = clock::now();
          comm.all_reduce(const_view(in[r]), view(out[r])).wait();
          s = std::chrono::duration<double>(clock::now() - start).count();
        }
      };
      if constexpr (reproducibly) {
        reproducible comm(engine);
        measure(comm);
      } else {
        measure(engine);
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
  float const expected = static_cast<float>(ranks * (ranks + 1) / 2);
  for (auto const& o : out)
    if (static_cast<float>(o.front()) != expected || static_cast<float>(o.back()) != expected)
      state.SkipWithError("the sum is wrong");
}

template <class T>
void add_case(program& all, i64 n, int ranks) {
  i64 const bytes = n * ranks * static_cast<i64>(sizeof(T));
  task const t{.name = text("comm/reproducible/", name_of(dtype_of<T>), "-", n, "/ranks-", ranks),
               .read = bytes,
               .written = bytes,
               .memory = 2 * bytes + 2 * ranks * arena::line,
               .threads = 1,
               .manual_time = true};
  all.add(t, "limber", role::subject, [=](benchmark::State& s) { sums<T, true>(s, ranks, n); });
  all.add(t, "plain", role::peer, [=](benchmark::State& s) { sums<T, false>(s, ranks, n); });
}

template <class T>
void say_bytes(std::ostream& to, i64 n) {
  i64 handed = 0;
  threads::run(1, [&](threads::communicator& engine) {
    counting inner{engine, handed};
    reproducible comm(inner);
    std::vector<T> in(static_cast<std::size_t>(n)), out(in);
    comm.all_reduce(const_view(in), view(out)).wait();
  });
  i64 const plain = n * static_cast<i64>(sizeof(T));
  to << "bytes for a sum of " << n << ' ' << name_of(dtype_of<T>) << ": " << handed << ", plain " << plain
     << ", ratio " << text(static_cast<double>(handed) / static_cast<double>(plain)).substr(0, 6) << "\n";
}

}  // namespace
}  // namespace limber::bench

int main(int argc, char** argv) {
  using namespace limber;
  bench::program all(argc, argv);
  i64 const scale = all.quick() ? 64 : 1;
  for (int const ranks : {2, 4}) {
    bench::add_case<float>(all, 1000, ranks);
    bench::add_case<float>(all, 90'000 / scale, ranks);
    bench::add_case<float>(all, (i64{4} << 20) / scale, ranks);
    bench::add_case<bf16>(all, (i64{4} << 20) / scale, ranks);
  }
  all.afterwards = [](std::ostream& to, bench::results const&) {
    for (i64 const n : {i64{1000}, i64{1} << 22}) {
      bench::say_bytes<float>(to, n);
      bench::say_bytes<bf16>(to, n);
    }
  };
  return all.run();
}

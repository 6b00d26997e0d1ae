// SPDX-License-Identifier: Apache-2.0

/// @file
/// The passes that surround an exchange: pack, norm, copy, accumulate, over 8 Mi elements.
///
/// Bytes per element that each task must move:
///
///     pack f32 to f32     read g 4           written sum 4, g 4    12
///     pack f32 to bf16    read g 4           written sum 2, g 4    10
///     norm f32            read 4                                    4
///     copy f32 to f32     read 4             written 4              8
///     accumulate f32      read sum 4, x 4    written sum 4         12
///
/// Rows     limber  the functor of fuse/functors.hpp, run by the host executor
///          loop    the same by hand (peer)

#include <limber/fuse/functors.hpp>
#include <limber/fuse/host.hpp>

#include <benchmark/benchmark.h>
#include <fuse/peers.hpp>
#include <support/program.hpp>

#include <cmath>

namespace limber::bench {
namespace {

// Calls one() in the loop of Google Benchmark.
template <class One>
void loop(benchmark::State& state, One const& one) {
  for (auto _ : state) {
    one();
    benchmark::ClobberMemory();
  }
}

template <class S>
void add_pack(program& all, std::string const& name, i64 n) {
  constexpr auto wire = static_cast<i64>(sizeof(S));
  task const pack_task{
      .name = "host-1/pack/" + name, .read = 4 * n, .written = (4 + wire) * n, .memory = (4 + wire) * n};
  all.add(pack_task, "limber", role::subject, [n](benchmark::State& state) {
    auto const g = arena::shared().take<float>(n);
    auto const sum = arena::shared().take<S>(n);
    fill(g);
    host on;
    tensor_list const from{view(g, "g")}, to{view(sum, "g")};
    loop(state, [&] { benchmark::DoNotOptimize(on.norm(pack{0.25}, inout(to), inout(from)).total.square); });
  });
  all.add(pack_task, "loop", role::peer, [n](benchmark::State& state) {
    auto const gradient = arena::shared().take<float>(n);
    auto const sum = arena::shared().take<S>(n);
    fill(gradient);
    loop(state, [&] {
      double squares = 0;
      for (i64 at = 0; at < n; at += 4096) {
        std::array<float, lanes> part{};
        float* __restrict const g = gradient.data() + at;
        S* __restrict const to = sum.data() + at;
        in_lanes(std::min<i64>(4096, n - at), [&](i64 i, i64 k) {
          float const x = g[i];
          part[static_cast<std::size_t>(k)] += x * x;
          store(to[i], 0.25f * x);
          g[i] = 0;
        });
        squares += sum_of(part);
      }
      benchmark::DoNotOptimize(squares);
    });
  });
}

void add_norm(program& all, i64 n) {
  task const norm_task{.name = "host-1/norm/f32", .read = 4 * n, .written = 0, .memory = 4 * n};
  all.add(norm_task, "limber", role::subject, [n](benchmark::State& state) {
    auto const x = arena::shared().take<float>(n);
    fill(x);
    host on;
    tensor_list const list{view(x, "x")};
    loop(state, [&] { benchmark::DoNotOptimize(on.norm(identity{}, in(list)).total.square); });
  });
  all.add(norm_task, "loop", role::peer, [n](benchmark::State& state) {
    auto const x = arena::shared().take<float>(n);
    fill(x);
    loop(state, [&] {
      double sum = norm(x.data(), n);
      benchmark::DoNotOptimize(sum);
    });
  });
}

// A pass over two arrays, y and x.
template <class Functor, class Hand>
void add_pass(program& all, task const& t, i64 n, Functor f, Hand hand) {
  all.add(t, "limber", role::subject, [n, f](benchmark::State& state) {
    auto const y = arena::shared().take<float>(n), x = arena::shared().take<float>(n);
    fill(x);
    fill(y);
    host on;
    tensor_list const to{view(y, "x")}, from{view(x, "x")};
    loop(state, [&] {
      if constexpr (std::is_same_v<Functor, copy>)
        on.each(f, out(to), in(from));
      else
        on.each(f, inout(to), in(from));
    });
  });
  all.add(t, "loop", role::peer, [n, hand](benchmark::State& state) {
    auto const to = arena::shared().take<float>(n), from = arena::shared().take<float>(n);
    fill(from);
    fill(to);
    float* __restrict const y = to.data();
    float const* __restrict const x = from.data();
    loop(state, [&] {
      for (i64 i = 0; i < n; ++i) hand(y[i], x[i]);
    });
  });
}

}  // namespace
}  // namespace limber::bench

int main(int argc, char** argv) {
  using namespace limber;
  bench::program all(argc, argv);
  i64 const n = all.quick() ? i64{1} << 17 : i64{1} << 23;
  bench::add_pack<float>(all, "f32-f32", n);
  bench::add_pack<bf16>(all, "f32-bf16", n);
  bench::add_norm(all, n);
  bench::add_pass(all, {.name = "host-1/copy/f32", .read = 4 * n, .written = 4 * n, .memory = 8 * n}, n,
                  copy{}, [](float& y, float const& x) { y = x; });
  bench::add_pass(all, {.name = "host-1/accumulate/f32", .read = 8 * n, .written = 4 * n, .memory = 8 * n}, n,
                  accumulate{}, [](float& y, float const& x) { y += x; });
  return all.run();
}

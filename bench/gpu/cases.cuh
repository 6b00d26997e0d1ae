// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What all cases on a device share: lists in its memory, the loop that is timed, the copy beside it.

#include <limber/cuda/cuda_device.cuh>

#include <benchmark/benchmark.h>
#include <gpu/cases.hpp>
#include <gpu/device.hpp>
#include <gpu/traffic.hpp>

#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace limber::bench {

// Bodies that compute in double.
template <class Body>
inline constexpr bool is_wide = false;
template <class F, access_mode... A>
inline constexpr bool is_wide<gpu::each_body<double, F, A...>> = true;
template <int Sums, class F, access_mode... A>
inline constexpr bool is_wide<gpu::norm_body<double, Sums, F, A...>> = true;
template <int Sums>
inline constexpr bool is_wide<gpu::total_body<Sums>> = true;

/// A CUDA device whose executor has the kernels in float alone: without those in double, which no list here
/// asks for, nvcc takes half the time.
class float_device : public gpu::cuda_device {
 public:
  using gpu::cuda_device::cuda_device;

  template <class Body>
  void launch(Body const& body, i64 items) {
    if constexpr (!is_wide<Body>) gpu::cuda_device::launch(body, items);
  }
};

/// What is measured.
using gpu_executor = gpu::basic_executor<float_device>;

/// Writes values around 0 of two decades, neither zero nor denormal.
template <class S>
struct fill_values {
  S* to;
  LIMBER_HD void operator()(i64 i) const noexcept {
    auto const bits = static_cast<std::uint32_t>(i) * 2'654'435'761u;
    to[i] = S((static_cast<float>(bits >> 24) - 127.5f) / 12'800);
  }
};

/// Some arrays over one list, in as many copies as it takes to leave the cache behind.
class arrays {
 public:
  /// @param beside  bytes per element of a copy that others will allocate
  arrays(shapes const& s, std::vector<dtype> types, i64 beside = 0)
      : types_(std::move(types)),
        extent_(s.extent),
        copies_(copies_of((per_element() + beside) * extent_)),
        memory_(copies_ * (per_element() * extent_ + static_cast<i64>(types_.size()) * device_memory::line),
                copies_ * beside * extent_) {
    for (i64 c = 0; c < copies_; ++c)
      for (dtype const type : types_) {
        auto* const at = memory_.take(extent_ * size_of(type));
        tensor_list list;
        for (std::size_t t = 0; t < s.lengths.size(); ++t)
          list.push_back({at + s.starts[t] * size_of(type), s.lengths[t], type, s.names[t]});
        lists_.push_back(std::move(list));
      }
  }

  [[nodiscard]] i64 copies() const noexcept { return copies_; }
  /// Array `a` of copy k modulo copies().
  [[nodiscard]] tensor_list const& list(i64 k, std::size_t a) const {
    return lists_[static_cast<std::size_t>(k % copies_) * types_.size() + a];
  }

  /// Gives array `a` of every copy values. Does not synchronize.
  void fill(gpu_executor& e, std::size_t a) const {
    for (i64 k = 0; k < copies_; ++k) {
      auto* const at = list(k, a).front().data;
      if (types_[a] == dtype::bf16)
        e.run(extent_, fill_values<bf16>{reinterpret_cast<bf16*>(at)});
      else
        e.run(extent_, fill_values<float>{reinterpret_cast<float*>(at)});
    }
  }

 private:
  [[nodiscard]] i64 per_element() const noexcept {
    i64 sum = 0;
    for (dtype const type : types_) sum += size_of(type);
    return sum;
  }

  std::vector<dtype> types_;
  i64 extent_, copies_;
  device_memory memory_;
  std::vector<tensor_list> lists_;
};

/// The loop of Google Benchmark over pass(k), k = 0, 1, …: batches of about two milliseconds between two
/// events, `between()` before each, not timed.
template <class Pass, class Between>
void time_passes(benchmark::State& state, gpu::stream_view on, Pass const& pass, Between const& between) {
  stopwatch watch;
  i64 k = 0;
  auto run = [&](i64 n) {
    between();
    watch.start(on);
    for (i64 i = 0; i < n; ++i) pass(k++);
    return watch.stop(on);
  };
  (void)run(16);  // tables and plans of every copy are made
  double one = run(1);
  if (one < 0.1) one = run(4) / 4;  // without the time that the first launch takes to arrive
  i64 const batch = std::clamp<i64>(static_cast<i64>(2e-3 / one), 1, 256);
  while (state.KeepRunningBatch(batch)) state.SetIterationTime(run(batch));
}

/// Calls f(stream) for one case; what it throws is what the table says.
template <class F>
void on_device(benchmark::State& state, F const& f) {
  try {
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // memory of the case before is back
    gpu::stream const stream;
    f(gpu::stream_view{stream});
    gpu::check(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
  } catch (std::exception const& e) { state.SkipWithError(e.what()); }
}

/// The task of kernel `name` on a list; the copy beside it is added with it.
[[nodiscard]] inline task task_of(program& all, std::string const& name, shapes const& s, dtype type,
                                  traffic per_element) {
  task out{.name = text("gpu/", name, '/', s.name, '/', name_of(type)),
           .read = per_element.read * s.elements,
           .written = per_element.written * s.elements,
           .has_ceiling = false,
           .manual_time = true};
  i64 const half = (out.read + out.written) / 2;
  out.copy = text("gpu/copy/", s.name, '/', per_element.both(), "B");
  if (!all.has(out.copy)) {
    task const copy{
        .name = out.copy, .read = half, .written = half, .has_ceiling = false, .manual_time = true};
    all.add(copy, "", role::ceiling, [half](benchmark::State& state) {
      on_device(state, [&](gpu::stream_view on) {
        i64 const copies = copies_of(2 * half);
        device_memory memory(2 * copies * (half + device_memory::line), 0);
        std::vector<std::byte*> from, to;
        for (i64 k = 0; k < copies; ++k) {
          from.push_back(memory.take(half));
          to.push_back(memory.take(half));
        }
        time_passes(
            state, on,
            [&](i64 k) {
              auto const c = static_cast<std::size_t>(k % copies);
              gpu::check(cudaMemcpyAsync(to[c], from[c], static_cast<std::size_t>(half),
                                         cudaMemcpyDeviceToDevice, on.get()),
                         "cudaMemcpyAsync");
            },
            [] {});
      });
    });
  }
  return out;
}

}  // namespace limber::bench

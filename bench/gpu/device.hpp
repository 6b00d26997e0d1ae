// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The device of a bench: what it is, its memory, and time on its stream.

#include <limber/core/error.hpp>
#include <limber/cuda/error.hpp>
#include <limber/cuda/stream.hpp>
#include <limber/fuse/layout.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace limber::bench {

/// Lines for the machine block.
[[nodiscard]] inline std::string describe_device() {
  cudaDeviceProp p{};
  int driver = 0, runtime = 0, ordinal = 0;
  gpu::check(cudaGetDevice(&ordinal), "cudaGetDevice");
  gpu::check(cudaGetDeviceProperties(&p, ordinal), "cudaGetDeviceProperties");
  gpu::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  gpu::check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  auto version = [](int v) { return text(v / 1000, '.', v % 1000 / 10); };
  return text("device     ", p.name, ", sm_", p.major, p.minor, ", ", p.multiProcessorCount, " SMs, ",
              p.totalGlobalMem >> 20, " MiB, L2 ", p.l2CacheSize >> 20, " MiB, bus of ", p.memoryBusWidth,
              " bits", p.ECCEnabled != 0 ? ", ECC" : "", "\ncuda       driver ", version(driver),
              ", runtime ", version(runtime), '\n');
}

/// Bytes of the last-level cache.
[[nodiscard]] inline i64 cache_bytes() {
  int ordinal = 0, bytes = 0;
  gpu::check(cudaGetDevice(&ordinal), "cudaGetDevice");
  gpu::check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, ordinal), "cudaDeviceGetAttribute");
  return bytes;
}

/// How many copies of so many bytes are used in turn, so that none is found in the cache: together four
/// times its size, 16 copies at most.
[[nodiscard]] inline i64 copies_of(i64 bytes) {
  return std::clamp<i64>((4 * cache_bytes() + bytes - 1) / std::max<i64>(bytes, 1), 1, 16);
}

/// A block of the device's memory, zeroed, handed out from its start.
class device_memory {
 public:
  static constexpr i64 line = 256;

  /// @param beside  bytes that others will allocate while this lives
  /// @throws std::invalid_argument, in words for the table, if the device has not so much left
  device_memory(i64 bytes, i64 beside) : bytes_(bytes) {
    std::size_t free = 0, all = 0;
    gpu::check(cudaMemGetInfo(&free, &all), "cudaMemGetInfo");
    expects(static_cast<double>(bytes + beside) < 0.97 * static_cast<double>(free), "needs ",
            (bytes + beside) >> 20, " MiB, ", free >> 20, " are free");
    void* p = nullptr;
    gpu::check(cudaMalloc(&p, static_cast<std::size_t>(bytes)), "cudaMalloc");
    data_ = static_cast<std::byte*>(p);
    gpu::check(cudaMemset(data_, 0, static_cast<std::size_t>(bytes)), "cudaMemset");
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  device_memory(device_memory const&) = delete;
  device_memory& operator=(device_memory const&) = delete;
  ~device_memory() { (void)cudaFree(data_); }

  [[nodiscard]] std::byte* take(i64 bytes) {
    i64 const at = taken_;
    taken_ += round_up(bytes, line);
    expects(taken_ <= bytes_, "bench: a case took ", taken_, " bytes of ", bytes_);
    return data_ + at;
  }

 private:
  std::byte* data_ = nullptr;
  i64 bytes_, taken_ = 0;
};

/// Time between two places of a stream.
class stopwatch {
 public:
  stopwatch() {
    gpu::check(cudaEventCreate(&from_), "cudaEventCreate");
    gpu::check(cudaEventCreate(&to_), "cudaEventCreate");
  }
  stopwatch(stopwatch const&) = delete;
  stopwatch& operator=(stopwatch const&) = delete;
  ~stopwatch() {
    (void)cudaEventDestroy(from_);
    (void)cudaEventDestroy(to_);
  }

  /// Does not synchronize.
  void start(gpu::stream_view on) { gpu::check(cudaEventRecord(from_, on.get()), "cudaEventRecord"); }
  /// Seconds since `start`. Synchronizes.
  [[nodiscard]] double stop(gpu::stream_view on) {
    gpu::check(cudaEventRecord(to_, on.get()), "cudaEventRecord");
    gpu::check(cudaEventSynchronize(to_), "cudaEventSynchronize");
    float milliseconds = 0;
    gpu::check(cudaEventElapsedTime(&milliseconds, from_, to_), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds) / 1e3;
  }

 private:
  cudaEvent_t from_ = nullptr, to_ = nullptr;
};

/// Kernels that f enqueues; nothing runs.
template <class F>
[[nodiscard]] int kernels_in(gpu::stream_view on, F&& f) {
  gpu::check(cudaStreamBeginCapture(on.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t graph = nullptr;
  try {
    std::forward<F>(f)();
  } catch (...) {
    (void)cudaStreamEndCapture(on.get(), &graph);
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
    throw;
  }
  gpu::check(cudaStreamEndCapture(on.get(), &graph), "cudaStreamEndCapture");
  std::size_t n = 0;
  gpu::check(cudaGraphGetNodes(graph, nullptr, &n), "cudaGraphGetNodes");
  std::vector<cudaGraphNode_t> nodes(n);
  if (n > 0) gpu::check(cudaGraphGetNodes(graph, nodes.data(), &n), "cudaGraphGetNodes");
  int kernels = 0;
  for (auto const node : nodes) {
    cudaGraphNodeType type{};
    gpu::check(cudaGraphNodeGetType(node, &type), "cudaGraphNodeGetType");
    kernels += type == cudaGraphNodeTypeKernel ? 1 : 0;
  }
  (void)cudaGraphDestroy(graph);
  return kernels;
}

}  // namespace limber::bench

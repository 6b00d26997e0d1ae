// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A CUDA device and one of its streams, as an executor wants them; and the gpu executor.

#include <limber/core/tensor.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/cuda/launch.cuh>
#include <limber/cuda/stream.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

namespace limber::gpu {

/// Where an executor's device memory comes from, when that is not the runtime's pool: a host framework's
/// caching allocator. Both are called in the order of the stream.
struct memory_source {
  std::function<void*(std::size_t bytes, cudaStream_t)> allocate{};  ///< null: out of memory
  std::function<void(void*, cudaStream_t)> release{};                ///< must not throw
};

/// The device that is current when it is made, and a stream of it.
///
/// Memory   stream-ordered (cudaMallocAsync), or from a source of the caller's; what executors allocate has
/// to be released before the stream is
///          destroyed. Host memory is pinned.
/// Errors   std::invalid_argument for a device without stream-ordered memory or a stream of another device;
///          limber::error for what the runtime reports.
class cuda_device {
 public:
  using marker = stream_event;

  explicit cuda_device(stream_view stream, memory_source from = {})
      : stream_(stream), from_(std::move(from)) {
    check(cudaGetDevice(&ordinal_), "cudaGetDevice");
    expects(!from_.allocate == !from_.release, "gpu: a memory_source needs both allocate and release");
    expects(from_.allocate || attribute(cudaDevAttrMemoryPoolsSupported) != 0, "gpu: device ", ordinal_,
            " has no stream-ordered memory");
#if CUDART_VERSION >= 12080
    int of_stream = ordinal_;
    check(cudaStreamGetDevice(stream.get(), &of_stream), "cudaStreamGetDevice");
    expects(of_stream == ordinal_, "gpu: the stream belongs to device ", of_stream, ", but device ", ordinal_,
            " is current");
#endif
    // Enough for every scheduler of the chip to have four warps to choose from.
    warps_ = i64{attribute(cudaDevAttrMultiProcessorCount)} * 16;
  }

  /// True between the begin and the end of a capture of the stream. Does not synchronize.
  [[nodiscard]] bool capturing() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream_.get(), &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
  }

  /// Does not synchronize.
  [[nodiscard]] std::byte* allocate(i64 bytes) {
    expects(!capturing(),
            "gpu: memory cannot be allocated while a graph is captured: run the same step once before");
    current_device const here(ordinal_);
    if (from_.allocate) {
      void* const p = from_.allocate(static_cast<std::size_t>(bytes), stream_.get());
      if (p == nullptr) check(cudaErrorMemoryAllocation, "memory_source");
      expects(reinterpret_cast<std::uintptr_t>(p) % slot_alignment == 0, "gpu: memory_source gave ", p,
              ", which is not aligned to ", slot_alignment, " bytes");
      return static_cast<std::byte*>(p);
    }
    void* p = nullptr;
    check(cudaMallocAsync(&p, static_cast<std::size_t>(bytes), stream_.get()), "cudaMallocAsync");
    return static_cast<std::byte*>(p);
  }
  /// Does not synchronize. Errors are not reported: the runtime may be shutting down.
  void release(std::byte* p) noexcept {
    if (from_.release) return from_.release(p, stream_.get());
    if (cudaFreeAsync(p, stream_.get()) != cudaSuccess) (void)cudaGetLastError();
  }
  /// May synchronize the device.
  [[nodiscard]] std::byte* allocate_host(i64 bytes) {
    current_device const here(ordinal_);
    void* p = nullptr;
    check(cudaHostAlloc(&p, static_cast<std::size_t>(bytes), cudaHostAllocDefault), "cudaHostAlloc");
    return static_cast<std::byte*>(p);
  }
  /// Synchronizes the stream: transfers from and to p may be under way.
  void release_host(std::byte* p) noexcept {
    if (cudaStreamSynchronize(stream_.get()) != cudaSuccess) (void)cudaGetLastError();
    if (cudaFreeHost(p) != cudaSuccess) (void)cudaGetLastError();
  }

  /// Does not synchronize.
  void upload(void* to, void const* from, i64 bytes) { transfer(to, from, bytes, cudaMemcpyHostToDevice); }
  /// Does not synchronize.
  void download(void* to, void const* from, i64 bytes) { transfer(to, from, bytes, cudaMemcpyDeviceToHost); }
  /// Does not synchronize.
  void clear(void* p, i64 bytes) {
    current_device const here(ordinal_);
    check(cudaMemsetAsync(p, 0, static_cast<std::size_t>(bytes), stream_.get()), "cudaMemsetAsync");
  }

  /// Synchronizes the stream.
  void synchronize() { stream_.synchronize(); }
  /// Does not synchronize.
  void mark(marker& place) {
    current_device const here(ordinal_);
    place.mark(stream_);
  }
  /// Synchronizes with the place.
  void await(marker const& place) { place.synchronize(); }
  /// Does not synchronize.
  [[nodiscard]] bool reached(marker const& place) const { return place.reached(); }

  /// Does not synchronize.
  template <class Body>
  void launch(Body const& body, i64 items) {
    current_device const here(ordinal_);
    launch_items(body, items, stream_);
  }

  /// @throws std::invalid_argument naming a tensor that is not in this device's memory
  void check_memory(tensor_view const& t) const {
    cudaPointerAttributes where{};
    check(cudaPointerGetAttributes(&where, t.data), "cudaPointerGetAttributes");
    expects(where.type == cudaMemoryTypeDevice || where.type == cudaMemoryTypeManaged, "executor: '", t.name,
            "' is in the host's memory, not in that of device ", ordinal_);
    expects(where.type == cudaMemoryTypeManaged || where.device == ordinal_, "executor: '", t.name,
            "' is in the memory of device ", where.device, ", not of device ", ordinal_);
  }

  [[nodiscard]] i64 warps() const noexcept { return warps_; }
  [[nodiscard]] int ordinal() const noexcept { return ordinal_; }
  [[nodiscard]] stream_view stream() const noexcept { return stream_; }

 private:
  [[nodiscard]] int attribute(cudaDeviceAttr which) const {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, ordinal_), "cudaDeviceGetAttribute");
    return value;
  }
  void transfer(void* to, void const* from, i64 bytes, cudaMemcpyKind kind) {
    current_device const here(ordinal_);
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream_.get()), "cudaMemcpyAsync");
  }

  stream_view stream_;
  memory_source from_;
  int ordinal_ = 0;
  i64 warps_ = 0;
};

/// Runs functors on a GPU, in the order of one stream:
///
///     gpu::stream stream;
///     gpu::executor e{stream};                                 // or {stream, memory_source{take, give}}
///     e.each(copy{}, out(to), in(from));
using executor = basic_executor<cuda_device>;

}  // namespace limber::gpu

namespace limber {
static_assert(executor<gpu::executor>);
}

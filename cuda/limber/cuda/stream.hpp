// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Streams and events of CUDA as values: always said explicitly, never the default stream.

#include <limber/cuda/error.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

namespace limber::gpu {

/// A stream of somebody's who keeps it alive. Never the default stream by accident: 0 and nullptr are no
/// streams.
class stream_view {
 public:
  explicit(false) stream_view(cudaStream_t stream) noexcept : stream_(stream) {}
  stream_view(int) = delete;
  stream_view(std::nullptr_t) = delete;

  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }

  /// Synchronizes the stream.
  void synchronize() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_;
};

/// A stream of one's own, on the device that is current when it is made; it does not wait for the
/// default stream. Moves, never copies.
class stream {
 public:
  stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  stream(stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  stream& operator=(stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~stream() {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }

  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }
  explicit(false) operator stream_view() const noexcept { return stream_view{stream_}; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// A place in a stream: made when first marked, without a time. Moves, never copies.
class stream_event {
 public:
  stream_event() = default;
  stream_event(stream_event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  stream_event& operator=(stream_event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  ~stream_event() {
    if (event_ != nullptr) (void)cudaEventDestroy(event_);
  }

  /// Moves to what `where` has been given so far. Does not synchronize.
  void mark(stream_view where) {
    if (event_ == nullptr)
      check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check(cudaEventRecord(event_, where.get()), "cudaEventRecord");
  }
  /// Synchronizes with the place; returns at once if it was never marked.
  void synchronize() const {
    if (event_ != nullptr) check(cudaEventSynchronize(event_), "cudaEventSynchronize");
  }
  /// Whether the stream has come to the place; true if it was never marked. Does not synchronize.
  [[nodiscard]] bool reached() const {
    if (event_ == nullptr) return true;
    cudaError_t const status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    check(status, "cudaEventQuery");
    return true;
  }
  /// Makes a stream wait for the place. Does not synchronize.
  void hold(stream_view other) const {
    if (event_ != nullptr) check(cudaStreamWaitEvent(other.get(), event_, 0), "cudaStreamWaitEvent");
  }
  [[nodiscard]] cudaEvent_t get() const noexcept { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Makes a device current while it lives.
class current_device {
 public:
  explicit current_device(int ordinal) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ == ordinal)
      before_ = -1;
    else
      check(cudaSetDevice(ordinal), "cudaSetDevice");
  }
  ~current_device() {
    if (before_ >= 0) (void)cudaSetDevice(before_);
  }
  current_device(current_device const&) = delete;
  current_device& operator=(current_device const&) = delete;

 private:
  int before_ = -1;
};

}  // namespace limber::gpu

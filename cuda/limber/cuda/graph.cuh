// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A captured run of work on a stream, launched as one.

#include <limber/cuda/error.hpp>

#include <cuda_runtime_api.h>

#include <utility>

namespace limber::gpu {

/// A CUDA graph, ready to launch.
///
///     step.advance(n, planned); forward(); backward(); step.update();      // once: everything is set up
///     gpu::graph const g = gpu::graph::capture(stream, [&] { forward(); backward(); step.update(); });
///     for (…) { step.advance(n, planned); g.launch(stream); }          // the first advance counts, too
///
/// Order    a graph with work of an executor is launched on the executor's stream; one with NCCL work is
///          destroyed before the communicator.
/// Memory   holds addresses: what the captured work reads and writes must stay where it is as long as
///          the graph is launched. Freed memory under a graph is not detected here; compute-sanitizer
///          does.
class graph {
 public:
  /// Captures what f enqueues on `stream`, other streams that fork from it and join it included.
  /// Nothing runs. Does not synchronize.
  /// @throws limber::error if f enqueues what cannot be captured (a wait of the host), and
  ///         std::invalid_argument if an executor would have to allocate or send
  template <class F>
  [[nodiscard]] static graph capture(cudaStream_t stream, F&& f) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t captured = nullptr;
    try {
      std::forward<F>(f)();
    } catch (...) {
      (void)cudaStreamEndCapture(stream, &captured);
      if (captured != nullptr) (void)cudaGraphDestroy(captured);
      (void)cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream, &captured), "cudaStreamEndCapture");
    graph g;
    cudaError_t const made = cudaGraphInstantiate(&g.ready_, captured, 0);
    (void)cudaGraphDestroy(captured);
    check(made, "cudaGraphInstantiate");
    return g;
  }

  graph(graph&& other) noexcept : ready_(std::exchange(other.ready_, nullptr)) {}
  graph& operator=(graph&& other) noexcept {
    std::swap(ready_, other.ready_);
    return *this;
  }
  ~graph() {
    if (ready_ != nullptr) (void)cudaGraphExecDestroy(ready_);
  }

  /// Runs the captured work once. Does not synchronize.
  void launch(cudaStream_t stream) const { check(cudaGraphLaunch(ready_, stream), "cudaGraphLaunch"); }

 private:
  graph() = default;
  cudaGraphExec_t ready_ = nullptr;
};

}  // namespace limber::gpu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The one kernel: a warp for each item of a body.

#include <limber/cuda/error.hpp>
#include <limber/cuda/stream.hpp>
#include <limber/cuda/warp.hpp>

#include <nvtx3/nvToolsExt.h>

namespace limber::gpu {

inline constexpr int warps_per_block = 8;
inline constexpr int threads_per_block = warps_per_block * warp_lanes;

/// So many blocks have to fit into a multiprocessor at once: 16 warps hide the latency of memory. Bodies that
/// say nothing keep the registers they want.
template <class Body>
inline constexpr int blocks_at_once = 1;
template <class Body>
  requires requires { Body::blocks_at_once; }
inline constexpr int blocks_at_once<Body> = Body::blocks_at_once;

/// body(warp, item) for item in [0, items).
template <class Body>
__global__ void __launch_bounds__(threads_per_block, blocks_at_once<Body>)
    run_items(__grid_constant__ Body const body, i64 items) {
  i64 const item = static_cast<i64>(blockIdx.x) * warps_per_block + threadIdx.x / warp_lanes;
  if (item < items) body(warp{}, item);
}

/// A range in a profiler's timeline while it lives.
class profiler_range {
 public:
  explicit profiler_range(char const* name) noexcept { nvtxRangePushA(name); }
  ~profiler_range() { nvtxRangePop(); }
  profiler_range(profiler_range const&) = delete;
  profiler_range& operator=(profiler_range const&) = delete;
};

/// Starts a body in the order of the stream. Does not synchronize.
template <class Body>
void launch_items(Body const& body, i64 items, stream_view where) {
  if (items <= 0) return;
  profiler_range const range(Body::name);
  cudaLaunchConfig_t how{};
  how.gridDim.x = static_cast<unsigned>((items + warps_per_block - 1) / warps_per_block);
  how.blockDim.x = threads_per_block;
  how.stream = where.get();
  check(cudaLaunchKernelEx(&how, run_items<Body>, body, items), Body::name);
}

}  // namespace limber::gpu

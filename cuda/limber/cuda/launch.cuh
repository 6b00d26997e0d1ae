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

/// body(warp, item) for item in [0, items).
template <class Body>
__global__ void __launch_bounds__(threads_per_block, 1)
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
  auto const blocks = static_cast<unsigned>((items + warps_per_block - 1) / warps_per_block);
  run_items<<<blocks, threads_per_block, 0, where.get()>>>(body, items);
  check(cudaGetLastError(), Body::name);
}

}  // namespace limber::gpu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A warp, real or emulated: what a kernel body may ask of its 32 lanes.
///
/// A body is written once, as a function of (warp, item). Code that each lane runs for itself stands in
/// `for_lanes`; what a lane remembers between such phases is a `per_lane<S>`; lanes meet in `fold` and
/// `broadcast` alone. No block-wide barrier, no shared memory: so a loop over lanes runs a body on the host.

#include <limber/core/config.hpp>
#include <limber/cuda/unroll.hpp>

#include <array>
#include <cstddef>
#include <cstring>

namespace limber::gpu {

inline constexpr int warp_lanes = 32;

/// A warp on the host: its lanes one after the other.
class emulated_warp {
 public:
  /// One S for each lane.
  template <class S>
  using per_lane = std::array<S, warp_lanes>;

  template <class F>
  LIMBER_HD void for_lanes(F const& f) const {
    for (int lane = 0; lane < warp_lanes; ++lane) f(lane);
  }
  template <class S>
  LIMBER_HD static S& own(per_lane<S>& s, int lane) {
    return s.data()[lane];
  }

  /// Lane l takes op(own, lane l + d's). @pre what lanes from 32 − d on hold afterwards is not used
  template <class S, class Op>
  LIMBER_HD void fold(per_lane<S>& s, int d, Op const& op) const {
    for (int lane = 0; lane + d < warp_lanes; ++lane) s.data()[lane] = op(s.data()[lane], s.data()[lane + d]);
  }
  /// What lane `from` holds.
  template <class S>
  [[nodiscard]] LIMBER_HD S broadcast(per_lane<S>& s, int from) const {
    return s.data()[from];
  }

  /// Adds one to a counter that other warps add to as well: what this warp wrote is seen by whoever
  /// finds the counter higher. Lane 0 alone calls it. Returns the value before.
  LIMBER_HD unsigned count_up(unsigned* counter) const { return (*counter)++; }
  /// What other warps wrote before they counted up is visible from here on.
  LIMBER_HD void acquire() const {}
  /// Reads what another warp of the same launch may have written.
  template <class S>
  [[nodiscard]] LIMBER_HD S fresh(S const* p) const {
    return *p;
  }
};

#if defined(__CUDACC__)

/// A warp on the device; a lane sees itself alone.
class warp {
 public:
  template <class S>
  using per_lane = S;

  template <class F>
  __device__ __forceinline__ void for_lanes(F const& f) const {
    f(static_cast<int>(threadIdx.x) % warp_lanes);
  }
  template <class S>
  __device__ __forceinline__ static S& own(S& s, int) {
    return s;
  }

  template <class S, class Op>
  __device__ __forceinline__ void fold(S& s, int d, Op const& op) const {
    s = op(s, words(s, [d](unsigned w) { return __shfl_down_sync(all, w, static_cast<unsigned>(d)); }));
  }
  template <class S>
  [[nodiscard]] __device__ __forceinline__ S broadcast(S& s, int from) const {
    return words(s, [from](unsigned w) { return __shfl_sync(all, w, from); });
  }

  __device__ __forceinline__ unsigned count_up(unsigned* counter) const {
    __threadfence();
    return atomicAdd(counter, 1u);
  }
  __device__ __forceinline__ void acquire() const {
    __syncwarp();  // lane 0 counted up for all
    __threadfence();
  }

  // The L1 cache is not coherent: read from L2.
  template <class S>
  [[nodiscard]] __device__ __forceinline__ S fresh(S const* p) const {
    static_assert(sizeof(S) == 8 || sizeof(S) == 16);
    S s;
    if constexpr (sizeof(S) == 8) {
      uint2 const raw = __ldcg(reinterpret_cast<uint2 const*>(p));
      std::memcpy(&s, &raw, sizeof s);
    } else {
      uint4 const raw = __ldcg(reinterpret_cast<uint4 const*>(p));
      std::memcpy(&s, &raw, sizeof s);
    }
    return s;
  }

 private:
  static constexpr unsigned all = 0xffff'ffffu;

  // Shuffles move 32 bits at a time.
  template <class S, class F>
  __device__ __forceinline__ static S words(S const& s, F const& f) {
    static_assert(sizeof(S) % sizeof(unsigned) == 0);
    unsigned raw[sizeof(S) / sizeof(unsigned)];
    std::memcpy(raw, &s, sizeof s);
    LIMBER_DETAIL_UNROLL
    for (unsigned& w : raw) w = f(w);
    S out;
    std::memcpy(&out, raw, sizeof out);
    return out;
  }
};

#else

using warp = emulated_warp;  // a host that plays the device

#endif

}  // namespace limber::gpu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A stand-in for the CUDA runtime: the calls that the gpu room makes, on the host, as late as CUDA allows.
///
/// Calls       only enqueue; copies read and kernels run when somebody waits (late_cuda/machine.hpp). The
///             rules are those of the CUDA Runtime API manual: what must not be called during a capture,
///             what does not wait for non-blocking streams, which handles belong to which device, where
///             memory has to lie.
/// Kernels     run once for each warp (threadIdx.x is its first lane's), warps in any order; so a kernel is
///             one whose body works on `gpu::emulated_warp`. No barriers, no shared memory.
/// Not here    everything else. Speed, compilation, hardware: those need a GPU.

#include <late_cuda/machine.hpp>

#include <numeric>
#include <stdexcept>
#include <tuple>

#define CUDART_VERSION 13000
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorMisalignedAddress = 716,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureUnjoined = 904,
  cudaErrorStreamCaptureImplicit = 906,
  cudaErrorCapturedEvent = 907,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaMemoryType {
  cudaMemoryTypeUnregistered = 0,
  cudaMemoryTypeHost = 1,
  cudaMemoryTypeDevice = 2,
  cudaMemoryTypeManaged = 3
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMemoryPoolsSupported = 115 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal };
enum cudaMemPoolAttr { cudaMemPoolAttrUsedMemCurrent = 7 };
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0;

using cudaStream_t = late_cuda::stream*;
using cudaEvent_t = late_cuda::event*;
using cudaGraph_t = late_cuda::graph*;
using cudaGraphExec_t = late_cuda::executable_graph*;
using cudaMemPool_t = int*;
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  void* attrs;
  unsigned numAttrs;
};
inline thread_local dim3 blockIdx, threadIdx;

namespace late_cuda {

inline machine& here() { return machine::one(); }

/// Counts a call; what it found goes to cudaGetLastError, too.
inline cudaError_t said(char const* call, cudaError_t status) {
  ++here().counts[call];
  if (here().fault != 0) status = static_cast<cudaError_t>(here().fault);
  if (status != cudaSuccess && status != cudaErrorNotReady) here().last_error = status;
  return status;
}

/// An unsafe call while a stream is captured ends the capture.
inline bool forbidden() {
  bool any = false;
  for (void const* h : here().handles) {
    auto* const s = static_cast<stream*>(const_cast<void*>(h));
    if (s->captured == nullptr) continue;
    s->captured->valid = false;
    any = true;
  }
  return any;
}
inline bool known(stream const* s) { return here().handles.contains(s); }

/// Status of giving work to a stream.
inline cudaError_t takes(stream const* s) {
  if (!known(s) || s->device != here().current) return cudaErrorInvalidResourceHandle;
  if (s->captured != nullptr && !s->captured->valid) return cudaErrorStreamCaptureInvalidated;
  return cudaSuccess;
}

inline bool in_memory(void const* p, std::size_t bytes, kind is) {
  auto const* const a = here().find(p, bytes);
  return a != nullptr && a->is == is && (is == kind::pinned || a->device == here().current);
}

/// Runs a kernel's warps, each once, at places a · k + b modulo their number.
template <class F>
void run_grid(unsigned blocks, unsigned threads, F const& kernel) try {
  std::uint64_t const warps = threads / 32, n = blocks * warps, bits = here().random();
  std::uint64_t step = 1 + bits % n, at = (bits >> 32) % n;
  while (std::gcd(step, n) != 1) step = step % n + 1;
  for (std::uint64_t k = 0; k < n; ++k, at = (at + step) % n) {
    blockIdx.x = static_cast<unsigned>(at / warps);
    threadIdx.x = static_cast<unsigned>(at % warps * 32);
    kernel();
  }
} catch (std::logic_error const& e) {
  here().fault = cudaErrorMisalignedAddress;
  here().what = e.what();
}

}  // namespace late_cuda

inline cudaError_t cudaGetLastError() {
  auto const last = static_cast<cudaError_t>(late_cuda::here().last_error);
  late_cuda::here().last_error = late_cuda::here().fault;
  return last;
}
inline char const* cudaGetErrorName(cudaError_t e) {
  switch (e) {
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorMisalignedAddress: return "cudaErrorMisalignedAddress";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
    case cudaErrorCapturedEvent: return "cudaErrorCapturedEvent";
    default: return "cudaError";
  }
}
inline char const* cudaGetErrorString(cudaError_t) { return late_cuda::here().what.c_str(); }

inline cudaError_t cudaGetDeviceCount(int* n) {
  *n = late_cuda::here().devices;
  return late_cuda::said("cudaGetDeviceCount", cudaSuccess);
}
inline cudaError_t cudaGetDevice(int* ordinal) {
  *ordinal = late_cuda::here().current;
  return late_cuda::said("cudaGetDevice", cudaSuccess);
}
inline cudaError_t cudaSetDevice(int ordinal) {
  if (ordinal < 0 || ordinal >= late_cuda::here().devices)
    return late_cuda::said("cudaSetDevice", cudaErrorInvalidDevice);
  late_cuda::here().current = ordinal;
  return late_cuda::said("cudaSetDevice", cudaSuccess);
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = which == cudaDevAttrMultiProcessorCount ? 4 : 1;
  return late_cuda::said("cudaDeviceGetAttribute", cudaSuccess);
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  *s = new late_cuda::stream{late_cuda::here().current, nullptr, {}, nullptr, nullptr};
  late_cuda::here().handles.insert(*s);
  return late_cuda::said("cudaStreamCreateWithFlags", cudaSuccess);
}
inline cudaError_t cudaStreamDestroy(cudaStream_t s) {
  if (!late_cuda::known(s)) return late_cuda::said("cudaStreamDestroy", cudaErrorInvalidResourceHandle);
  late_cuda::here().handles.erase(s);
  delete s;  // what it was given runs all the same
  return late_cuda::said("cudaStreamDestroy", cudaSuccess);
}
inline cudaError_t cudaStreamGetDevice(cudaStream_t s, int* ordinal) {
  if (!late_cuda::known(s)) return late_cuda::said("cudaStreamGetDevice", cudaErrorInvalidResourceHandle);
  *ordinal = s->device;
  return late_cuda::said("cudaStreamGetDevice", cudaSuccess);
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  if (!late_cuda::known(s)) return late_cuda::said("cudaStreamSynchronize", cudaErrorInvalidResourceHandle);
  if (s->captured != nullptr) {
    late_cuda::forbidden();
    return late_cuda::said("cudaStreamSynchronize", cudaErrorStreamCaptureUnsupported);
  }
  late_cuda::here().finish(s->last);
  for (auto const& w : s->waits) late_cuda::here().finish(w);
  return late_cuda::said("cudaStreamSynchronize", cudaSuccess);
}
inline cudaError_t cudaDeviceSynchronize() {
  if (late_cuda::forbidden())
    return late_cuda::said("cudaDeviceSynchronize", cudaErrorStreamCaptureUnsupported);
  late_cuda::here().finish_all();
  return late_cuda::said("cudaDeviceSynchronize", cudaSuccess);
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  *e = new late_cuda::event{late_cuda::here().current, nullptr, nullptr};
  return late_cuda::said("cudaEventCreateWithFlags", cudaSuccess);
}
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete e;
  return late_cuda::said("cudaEventDestroy", cudaSuccess);
}
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  if (!late_cuda::known(s) || e->device != s->device)
    return late_cuda::said("cudaEventRecord", cudaErrorInvalidResourceHandle);
  // What was waited for belongs to the place, too; a work of its own holds it.
  if (!s->waits.empty()) late_cuda::here().enqueue(*s, {});
  e->at = s->last;
  e->captured = s->captured;
  return late_cuda::said("cudaEventRecord", cudaSuccess);
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  if (e->captured != nullptr) return late_cuda::said("cudaEventSynchronize", cudaErrorCapturedEvent);
  late_cuda::here().finish(e->at);
  return late_cuda::said("cudaEventSynchronize", cudaSuccess);
}
inline cudaError_t cudaEventQuery(cudaEvent_t e) {
  if (e->captured != nullptr) return late_cuda::said("cudaEventQuery", cudaErrorCapturedEvent);
  late_cuda::here().drift();
  bool const reached = e->at == nullptr || e->at->done;
  return late_cuda::said("cudaEventQuery", reached ? cudaSuccess : cudaErrorNotReady);
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  if (!late_cuda::known(s)) return late_cuda::said("cudaStreamWaitEvent", cudaErrorInvalidResourceHandle);
  if (s->captured != nullptr && e->captured != s->captured) {  // of another capture, or of none
    late_cuda::forbidden();
    return late_cuda::said("cudaStreamWaitEvent", cudaErrorStreamCaptureImplicit);
  }
  if (e->captured != nullptr && s->captured == nullptr) {  // the stream joins the capture
    if (!s->waits.empty()) late_cuda::here().enqueue(*s, {});
    s->captured = e->captured;
    s->before = std::exchange(s->last, nullptr);
  }
  if (e->at != nullptr) s->waits.push_back(e->at);
  return late_cuda::said("cudaStreamWaitEvent", cudaSuccess);
}

inline cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  if (late_cuda::forbidden()) return late_cuda::said("cudaMalloc", cudaErrorStreamCaptureUnsupported);
  *p = late_cuda::here().allocate(bytes, late_cuda::kind::device, false);
  return late_cuda::said("cudaMalloc", cudaSuccess);
}
inline cudaError_t cudaFree(void* p) {
  if (late_cuda::forbidden()) return late_cuda::said("cudaFree", cudaErrorStreamCaptureUnsupported);
  late_cuda::here().finish_all();  // synchronizes the device
  late_cuda::here().release(p);
  return late_cuda::said("cudaFree", cudaSuccess);
}
inline cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t s) {
  if (auto const e = late_cuda::takes(s); e != cudaSuccess) return late_cuda::said("cudaMallocAsync", e);
  *p = late_cuda::here().allocate(bytes, late_cuda::kind::device, true);
  return late_cuda::said("cudaMallocAsync", cudaSuccess);
}
inline cudaError_t cudaFreeAsync(void* p, cudaStream_t s) {
  if (!late_cuda::known(s)) return late_cuda::said("cudaFreeAsync", cudaErrorInvalidResourceHandle);
  if (s->captured != nullptr) return late_cuda::said("cudaFreeAsync", cudaErrorInvalidValue);
  late_cuda::here().enqueue(*s, [p] { late_cuda::here().release(p); });
  return late_cuda::said("cudaFreeAsync", cudaSuccess);
}
inline cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned) {
  if (late_cuda::forbidden()) return late_cuda::said("cudaHostAlloc", cudaErrorStreamCaptureUnsupported);
  *p = late_cuda::here().allocate(bytes, late_cuda::kind::pinned, false);
  return late_cuda::said("cudaHostAlloc", cudaSuccess);
}
/// The manual does not say that it waits: it does not.
inline cudaError_t cudaFreeHost(void* p) {
  if (late_cuda::forbidden()) return late_cuda::said("cudaFreeHost", cudaErrorStreamCaptureUnsupported);
  late_cuda::here().release(p);
  return late_cuda::said("cudaFreeHost", cudaSuccess);
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, void const* p) {
  auto const* const at = late_cuda::here().find(p);
  *a = at == nullptr                       ? cudaPointerAttributes{cudaMemoryTypeUnregistered, -1}
       : at->is == late_cuda::kind::pinned ? cudaPointerAttributes{cudaMemoryTypeHost, at->device}
                                           : cudaPointerAttributes{cudaMemoryTypeDevice, at->device};
  return late_cuda::said("cudaPointerGetAttributes", cudaSuccess);
}
inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int ordinal) {
  static int pools[64] = {};
  pools[ordinal] = ordinal;
  *pool = &pools[ordinal];
  return late_cuda::said("cudaDeviceGetDefaultMemPool", cudaSuccess);
}
inline cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void* value) {
  *static_cast<std::uint64_t*>(value) = late_cuda::here().pool_bytes(*pool);
  return late_cuda::said("cudaMemPoolGetAttribute", cudaSuccess);
}

/// Does not wait for streams that are non-blocking, as all are here.
inline cudaError_t cudaMemcpy(void* to, void const* from, std::size_t bytes, cudaMemcpyKind) {
  if (late_cuda::forbidden()) return late_cuda::said("cudaMemcpy", cudaErrorStreamCaptureImplicit);
  std::memcpy(to, from, bytes);
  return late_cuda::said("cudaMemcpy", cudaSuccess);
}
/// Pageable memory: what is sent was read when the call returns, and what is fetched is there by then.
inline cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t s) {
  using late_cuda::in_memory;
  if (auto const e = late_cuda::takes(s); e != cudaSuccess) return late_cuda::said("cudaMemcpyAsync", e);
  bool const up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
  if ((!down && !in_memory(to, bytes, late_cuda::kind::device)) ||
      (!up && !in_memory(from, bytes, late_cuda::kind::device)))
    return late_cuda::said("cudaMemcpyAsync", cudaErrorInvalidValue);
  bool const pageable = (down && !in_memory(to, bytes, late_cuda::kind::pinned)) ||
                        (up && !in_memory(from, bytes, late_cuda::kind::pinned));
  if (pageable && s->captured != nullptr) {
    late_cuda::forbidden();
    return late_cuda::said("cudaMemcpyAsync", cudaErrorStreamCaptureUnsupported);
  }
  if (pageable && up) {
    auto const* const p = static_cast<std::byte const*>(from);
    late_cuda::here().enqueue(*s,
                              [=, copy = std::vector(p, p + bytes)] { std::memcpy(to, copy.data(), bytes); });
  } else {
    late_cuda::here().enqueue(*s, [=] { std::memcpy(to, from, bytes); });
    if (pageable) late_cuda::here().finish(s->last);
  }
  return late_cuda::said("cudaMemcpyAsync", cudaSuccess);
}
inline cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t s) {
  if (auto const e = late_cuda::takes(s); e != cudaSuccess) return late_cuda::said("cudaMemsetAsync", e);
  if (!late_cuda::in_memory(p, bytes, late_cuda::kind::device))
    return late_cuda::said("cudaMemsetAsync", cudaErrorInvalidValue);
  late_cuda::here().enqueue(*s, [=] { std::memset(p, value, bytes); });
  return late_cuda::said("cudaMemsetAsync", cudaSuccess);
}

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* c, void (*kernel)(P...), A&&... arguments) {
  if (auto const e = late_cuda::takes(c->stream); e != cudaSuccess)
    return late_cuda::said("cudaLaunchKernelEx", e);
  unsigned const blocks = c->gridDim.x, threads = c->blockDim.x;
  constexpr std::size_t parameters = (sizeof(P) + ... + 0);
  if (blocks < 1 || blocks > 0x7fff'ffffu || threads < 32 || threads > 1024 || threads % 32 != 0 ||
      parameters > 4096)
    return late_cuda::said("cudaLaunchKernelEx", cudaErrorInvalidConfiguration);
  late_cuda::here().enqueue(*c->stream,
                            [=, all = std::tuple<P...>(static_cast<P>(std::forward<A>(arguments))...)] {
                              late_cuda::run_grid(blocks, threads, [&] { std::apply(kernel, all); });
                            });
  return late_cuda::said("cudaLaunchKernelEx", cudaSuccess);
}

inline cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  if (!late_cuda::known(s)) return late_cuda::said("cudaStreamIsCapturing", cudaErrorInvalidResourceHandle);
  *status = s->captured == nullptr ? cudaStreamCaptureStatusNone : cudaStreamCaptureStatusActive;
  return late_cuda::said("cudaStreamIsCapturing", cudaSuccess);
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  if (!late_cuda::known(s) || s->captured != nullptr)
    return late_cuda::said("cudaStreamBeginCapture", cudaErrorInvalidResourceHandle);
  if (!s->waits.empty()) late_cuda::here().enqueue(*s, {});
  s->before = std::exchange(s->last, nullptr);
  s->captured = std::make_shared<late_cuda::capture>();
  return late_cuda::said("cudaStreamBeginCapture", cudaSuccess);
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  *g = nullptr;
  if (!late_cuda::known(s) || s->captured == nullptr)
    return late_cuda::said("cudaStreamEndCapture", cudaErrorInvalidResourceHandle);
  auto const c = s->captured;
  // Every node has to lie before what the stream came to.
  std::unordered_set<void const*> reached;
  std::vector<late_cuda::work_ptr> front = s->waits;
  if (s->last != nullptr) front.push_back(s->last);
  while (!front.empty()) {
    auto const w = front.back();
    front.pop_back();
    if (reached.insert(w.get()).second) front.insert(front.end(), w->after.begin(), w->after.end());
  }
  bool const joined =
      std::ranges::all_of(c->nodes, [&](late_cuda::work_ptr const& w) { return reached.contains(w.get()); });
  for (void const* h : late_cuda::here().handles) {
    auto* const other = static_cast<cudaStream_t>(const_cast<void*>(h));
    if (other->captured != c) continue;
    other->captured = nullptr;
    other->waits.clear();
    other->last = std::exchange(other->before, nullptr);
  }
  if (!c->valid) return late_cuda::said("cudaStreamEndCapture", cudaErrorStreamCaptureInvalidated);
  if (!joined) return late_cuda::said("cudaStreamEndCapture", cudaErrorStreamCaptureUnjoined);
  *g = new late_cuda::graph{c->nodes};
  return late_cuda::said("cudaStreamEndCapture", cudaSuccess);
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t g, unsigned long long) {
  *ready = new late_cuda::executable_graph{g->nodes, nullptr};
  return late_cuda::said("cudaGraphInstantiate", cudaSuccess);
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  delete g;
  return late_cuda::said("cudaGraphDestroy", cudaSuccess);
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
  delete g;
  return late_cuda::said("cudaGraphExecDestroy", cudaSuccess);
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) {
  if (auto const e = late_cuda::takes(s); e != cudaSuccess) return late_cuda::said("cudaGraphLaunch", e);
  late_cuda::here().launch(*g, *s);
  return late_cuda::said("cudaGraphLaunch", cudaSuccess);
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of NCCL: GPUs, one rank each. The only header that includes nccl.h.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/nccl_communicator.hpp>
#include <limber/comm/detail/nccl_registration.hpp>
#include <limber/core/dtype.hpp>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>

static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 19, 1), "limber: NCCL 2.19 or newer is needed");

namespace limber::nccl {

/// The calls of NCCL and CUDA, each answered. Communicators are non-blocking. Nothing here throws.
///
/// ncclCommRevoke came with 2.28.7. Before, what is in flight can only be stopped by ending the
/// communicator: a failure aborts it, and there is no shrink.
class driver {
 public:
  using comm_type = ncclComm_t;
  using stream_type = cudaStream_t;
  using event_type = cudaEvent_t;

#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 7)
  static constexpr bool can_revoke = true;
#else
  static constexpr bool can_revoke = false;
#endif

  answer make_id(unique_id& id) {
    ncclUniqueId made;
    static_assert(sizeof made == sizeof id);
    answer const a = said("ncclGetUniqueId", ncclGetUniqueId(&made));
    std::memcpy(id.data(), &made, sizeof made);
    return a;
  }
  answer init(comm_type& comm, int size, unique_id const& id, int rank) {
    ncclUniqueId theirs;
    std::memcpy(&theirs, id.data(), sizeof theirs);
    ncclConfig_t how = NCCL_CONFIG_INITIALIZER;
    how.blocking = 0;
    return said("ncclCommInitRankConfig", ncclCommInitRankConfig(&comm, size, theirs, rank, &how), comm);
  }
  answer async_state(comm_type comm) {
    ncclResult_t now = ncclSuccess;
    ncclResult_t const asked = ncclCommGetAsyncError(comm, &now);
    return asked != ncclSuccess ? said("ncclCommGetAsyncError", asked, comm) : said("NCCL", now, comm);
  }
  answer split(comm_type comm, int color, int key, comm_type& made) {
    return said("ncclCommSplit", ncclCommSplit(comm, color, key, &made, nullptr), comm);
  }
  answer shrink(comm_type comm, std::span<int const> lost, bool abort, comm_type& made) {
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 7)
    lost_.fill(lost);
    return said("ncclCommShrink",
                ncclCommShrink(comm, lost_.ranks.data(), static_cast<int>(lost_.ranks.size()), &made, nullptr,
                               abort ? NCCL_SHRINK_ABORT : NCCL_SHRINK_DEFAULT),
                comm);
#else
    (void)comm, (void)lost, (void)abort, (void)made;
    return {state::failed, ncclInvalidUsage, "ncclCommShrink: needs NCCL 2.28.7"};
#endif
  }
  answer revoke(comm_type comm) {
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 7)
    return said("ncclCommRevoke", ncclCommRevoke(comm, NCCL_REVOKE_DEFAULT), comm);
#else
    (void)comm;
    return {state::failed, ncclInvalidUsage, "ncclCommRevoke: needs NCCL 2.28.7"};
#endif
  }
  answer finalize(comm_type comm) { return said("ncclCommFinalize", ncclCommFinalize(comm), comm); }
  answer destroy(comm_type comm) { return said("ncclCommDestroy", ncclCommDestroy(comm)); }
  answer abort(comm_type comm) { return said("ncclCommAbort", ncclCommAbort(comm)); }

  answer group_start() { return said("ncclGroupStart", ncclGroupStart()); }
  answer group_end() { return said("ncclGroupEnd", ncclGroupEnd()); }
  answer all_reduce(void const* in, void* out, std::size_t n, dtype type, reduction how, comm_type comm,
                    stream_type stream) {
    return said("ncclAllReduce",
                ncclAllReduce(in, out, n, of(type), how == reduction::sum ? ncclSum : ncclMax, comm, stream),
                comm);
  }
  answer reduce_scatter(void const* in, void* out, std::size_t n, dtype type, comm_type comm,
                        stream_type stream) {
    return said("ncclReduceScatter", ncclReduceScatter(in, out, n, of(type), ncclSum, comm, stream), comm);
  }
  answer all_gather(void const* in, void* out, std::size_t n, dtype type, comm_type comm,
                    stream_type stream) {
    return said("ncclAllGather", ncclAllGather(in, out, n, of(type), comm, stream), comm);
  }
  answer broadcast(void const* in, void* out, std::size_t n, dtype type, int root, comm_type comm,
                   stream_type stream) {
    return said("ncclBroadcast", ncclBroadcast(in, out, n, of(type), root, comm, stream), comm);
  }
  answer send(void const* in, std::size_t n, dtype type, int peer, comm_type comm, stream_type stream) {
    return said("ncclSend", ncclSend(in, n, of(type), peer, comm, stream), comm);
  }
  answer recv(void* out, std::size_t n, dtype type, int peer, comm_type comm, stream_type stream) {
    return said("ncclRecv", ncclRecv(out, n, of(type), peer, comm, stream), comm);
  }

  answer enroll(comm_type comm, void* memory, std::size_t bytes, void*& handle) {
    return said("ncclCommRegister", ncclCommRegister(comm, memory, bytes, &handle), comm);
  }
  answer withdraw(comm_type comm, void* handle) {
    return said("ncclCommDeregister", ncclCommDeregister(comm, handle), comm);
  }
  answer allocate_shared(void*& memory, std::size_t bytes) {
    return said("ncclMemAlloc", ncclMemAlloc(&memory, bytes));
  }
  answer release_shared(void* memory) { return said("ncclMemFree", ncclMemFree(memory)); }

  answer device_count(int& n) { return said("cudaGetDeviceCount", cudaGetDeviceCount(&n)); }
  answer device(int& current) { return said("cudaGetDevice", cudaGetDevice(&current)); }
  answer use_device(int device) { return said("cudaSetDevice", cudaSetDevice(device)); }
  /// The current device's UUID: different GPUs have different ones, on whatever machine.
  answer device_name(std::string& name) {
    int current = 0;
    cudaDeviceProp facts;
    if (answer const a = device(current); a.failed()) return a;
    answer const a = said("cudaGetDeviceProperties", cudaGetDeviceProperties(&facts, current));
    static constexpr char digits[] = "0123456789abcdef";
    name = "GPU-";
    for (char const c : facts.uuid.bytes) {
      auto const byte = static_cast<unsigned char>(c);
      name += digits[byte >> 4];
      name += digits[byte & 15];
    }
    return a;
  }
  /// The legacy default stream, and toolkits that cannot tell, count as the device in `device`.
  answer stream_device(stream_type stream, int& device) {
#if CUDART_VERSION >= 12080
    if (stream != nullptr && stream != cudaStreamLegacy && stream != cudaStreamPerThread)
      return said("cudaStreamGetDevice", cudaStreamGetDevice(stream, &device));
#endif
    (void)stream, (void)device;
    return {};
  }

  /// Of the highest priority: its kernels are few, and others wait for them.
  answer make_stream(stream_type& stream) {
    int least = 0, greatest = 0;
    if (answer const a =
            said("cudaDeviceGetStreamPriorityRange", cudaDeviceGetStreamPriorityRange(&least, &greatest));
        a.failed())
      return a;
    return said("cudaStreamCreateWithPriority",
                cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
  }
  answer drop_stream(stream_type stream) { return said("cudaStreamDestroy", cudaStreamDestroy(stream)); }
  answer idle(stream_type stream) { return said("cudaStreamQuery", cudaStreamQuery(stream)); }
  answer make_event(event_type& event) {
    return said("cudaEventCreateWithFlags", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  answer drop_event(event_type event) { return said("cudaEventDestroy", cudaEventDestroy(event)); }
  answer record(event_type event, stream_type stream) {
    return said("cudaEventRecord", cudaEventRecord(event, stream));
  }
  answer wait(stream_type stream, event_type event) {
    return said("cudaStreamWaitEvent", cudaStreamWaitEvent(stream, event, 0));
  }
  answer query(event_type event) { return said("cudaEventQuery", cudaEventQuery(event)); }

  answer place_of(void const* p, memory_place& where) {
    cudaPointerAttributes facts;
    answer const a = said("cudaPointerGetAttributes", cudaPointerGetAttributes(&facts, p));
    where.on_device =
        !a.failed() && (facts.type == cudaMemoryTypeDevice || facts.type == cudaMemoryTypeManaged);
    // Managed memory belongs to no device in particular.
    where.device = where.on_device && facts.type == cudaMemoryTypeManaged ? -1 : facts.device;
    return a;
  }
  /// In stream order where the device can, so that growing never waits for an operation in flight.
  answer allocate(void*& memory, std::size_t bytes, stream_type stream) {
    return said("cudaMallocAsync", cudaMallocAsync(&memory, bytes, stream));
  }
  answer release(void* memory, stream_type stream) {
    return said("cudaFreeAsync", cudaFreeAsync(memory, stream));
  }
  answer allocate_pinned(void*& memory, std::size_t bytes) {
    return said("cudaHostAlloc", cudaHostAlloc(&memory, bytes, cudaHostAllocDefault));
  }
  answer release_pinned(void* memory) { return said("cudaFreeHost", cudaFreeHost(memory)); }
  answer copy(void* to, void const* from, std::size_t bytes, stream_type stream) {
    return said("cudaMemcpyAsync", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
  }
  answer call(stream_type stream, detail::host_function f, void* argument) {
    return said("cudaLaunchHostFunc", cudaLaunchHostFunc(stream, f, argument));
  }

 private:
  // NCCL reads the list of a non-blocking shrink when it gets to it.
  struct lost_ranks {
    std::vector<int> ranks{};
    void fill(std::span<int const> lost) { ranks.assign(lost.begin(), lost.end()); }
  };

  [[nodiscard]] static answer said(char const* call, ncclResult_t result, comm_type comm = nullptr) {
    if (result == ncclSuccess) return {};
    if (result == ncclInProgress) return {state::pending};
    std::string reason = text(call, ": ", ncclGetErrorString(result));
    if (char const* const more = ncclGetLastError(comm); more && *more != '\0') reason += text(": ", more);
    return {state::failed, static_cast<int>(result), std::move(reason)};
  }
  [[nodiscard]] static answer said(char const* call, cudaError_t result) {
    if (result == cudaSuccess) return {};
    // It is reported here: whoever checks the next launch must not find it again.
    (void)cudaGetLastError();
    if (result == cudaErrorNotReady) return {state::pending};
    return {state::failed, static_cast<int>(result), text(call, ": ", cudaGetErrorString(result))};
  }
  [[nodiscard]] static constexpr ncclDataType_t of(dtype t) noexcept {
    switch (t) {
      case dtype::f32: return ncclFloat32;
      case dtype::f64: return ncclFloat64;
      case dtype::bf16: return ncclBfloat16;
      case dtype::f16: return ncclFloat16;
      case dtype::int64: return ncclInt64;
      case dtype::uint8: return ncclUint8;
    }
    return ncclUint8;
  }

  lost_ranks lost_;
};

using communicator = basic_communicator<driver>;
using memory = basic_memory<driver>;

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && registers_memory<communicator>);
static_assert(shrinkable<communicator> == driver::can_revoke);

}  // namespace limber::nccl

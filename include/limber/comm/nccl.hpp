// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of NCCL: one rank per GPU. The only header that includes nccl.h.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/nccl_communicator.hpp>
#include <limber/core/dtype.hpp>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstddef>
#include <cstring>
#include <span>
#include <string>

static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 19, 1), "limber: NCCL 2.19 or newer is needed");

namespace limber::nccl {

/// The calls of NCCL and CUDA. Communicators are non-blocking. Nothing here throws.
///
/// ncclCommRevoke needs 2.28.7. With older versions, operations in flight can only be stopped by aborting the
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
    answer const a = answer_of("ncclGetUniqueId", ncclGetUniqueId(&made));
    std::memcpy(id.data(), &made, sizeof made);
    return a;
  }
  answer init(comm_type& comm, int size, unique_id const& id, int rank) {
    ncclUniqueId theirs;
    std::memcpy(&theirs, id.data(), sizeof theirs);
    ncclConfig_t how = NCCL_CONFIG_INITIALIZER;
    how.blocking = 0;
    return answer_of("ncclCommInitRankConfig", ncclCommInitRankConfig(&comm, size, theirs, rank, &how), comm);
  }
  answer async_state(comm_type comm) {
    ncclResult_t now = ncclSuccess;
    ncclResult_t const asked = ncclCommGetAsyncError(comm, &now);
    return asked != ncclSuccess ? answer_of("ncclCommGetAsyncError", asked, comm)
                                : answer_of("NCCL", now, comm);
  }
  answer split(comm_type comm, int color, int key, comm_type& made) {
    return answer_of("ncclCommSplit", ncclCommSplit(comm, color, key, &made, nullptr), comm);
  }
  answer shrink(comm_type comm, std::span<int const> lost, bool abort, comm_type& made) {
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 7)
    lost_.fill(lost);
    return answer_of("ncclCommShrink",
                     ncclCommShrink(comm, lost_.ranks.data(), static_cast<int>(lost_.ranks.size()), &made,
                                    nullptr, abort ? NCCL_SHRINK_ABORT : NCCL_SHRINK_DEFAULT),
                     comm);
#else
    (void)comm, (void)lost, (void)abort, (void)made;
    return {state::failed, ncclInvalidUsage, "ncclCommShrink: needs NCCL 2.28.7"};
#endif
  }
  answer revoke(comm_type comm) {
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 7)
    return answer_of("ncclCommRevoke", ncclCommRevoke(comm, NCCL_REVOKE_DEFAULT), comm);
#else
    (void)comm;
    return {state::failed, ncclInvalidUsage, "ncclCommRevoke: needs NCCL 2.28.7"};
#endif
  }
  answer finalize(comm_type comm) { return answer_of("ncclCommFinalize", ncclCommFinalize(comm), comm); }
  answer destroy(comm_type comm) { return answer_of("ncclCommDestroy", ncclCommDestroy(comm)); }
  answer abort(comm_type comm) { return answer_of("ncclCommAbort", ncclCommAbort(comm)); }

  answer group_start() { return answer_of("ncclGroupStart", ncclGroupStart()); }
  answer group_end() { return answer_of("ncclGroupEnd", ncclGroupEnd()); }
  answer all_reduce(void const* in, void* out, std::size_t n, dtype type, reduction how, comm_type comm,
                    stream_type stream) {
    return answer_of(
        "ncclAllReduce",
        ncclAllReduce(in, out, n, of(type), how == reduction::sum ? ncclSum : ncclMax, comm, stream), comm);
  }
  answer reduce_scatter(void const* in, void* out, std::size_t n, dtype type, comm_type comm,
                        stream_type stream) {
    return answer_of("ncclReduceScatter", ncclReduceScatter(in, out, n, of(type), ncclSum, comm, stream),
                     comm);
  }
  answer all_gather(void const* in, void* out, std::size_t n, dtype type, comm_type comm,
                    stream_type stream) {
    return answer_of("ncclAllGather", ncclAllGather(in, out, n, of(type), comm, stream), comm);
  }
  answer broadcast(void const* in, void* out, std::size_t n, dtype type, int root, comm_type comm,
                   stream_type stream) {
    return answer_of("ncclBroadcast", ncclBroadcast(in, out, n, of(type), root, comm, stream), comm);
  }
  answer send(void const* in, std::size_t n, dtype type, int peer, comm_type comm, stream_type stream) {
    return answer_of("ncclSend", ncclSend(in, n, of(type), peer, comm, stream), comm);
  }
  answer recv(void* out, std::size_t n, dtype type, int peer, comm_type comm, stream_type stream) {
    return answer_of("ncclRecv", ncclRecv(out, n, of(type), peer, comm, stream), comm);
  }

  answer register_buffer(comm_type comm, void* memory, std::size_t bytes, void*& handle) {
    return answer_of("ncclCommRegister", ncclCommRegister(comm, memory, bytes, &handle), comm);
  }
  answer deregister_buffer(comm_type comm, void* handle) {
    return answer_of("ncclCommDeregister", ncclCommDeregister(comm, handle), comm);
  }
  answer allocate_shared(void*& memory, std::size_t bytes) {
    return answer_of("ncclMemAlloc", ncclMemAlloc(&memory, bytes));
  }
  answer release_shared(void* memory) { return answer_of("ncclMemFree", ncclMemFree(memory)); }

  answer device_count(int& n) { return answer_of("cudaGetDeviceCount", cudaGetDeviceCount(&n)); }
  answer device(int& current) { return answer_of("cudaGetDevice", cudaGetDevice(&current)); }
  answer use_device(int device) { return answer_of("cudaSetDevice", cudaSetDevice(device)); }
  /// The UUID of the current device, which is unique among all machines.
  answer device_name(std::string& name) {
    int current = 0;
    cudaDeviceProp facts;
    if (answer const a = device(current); a.failed()) return a;
    answer const a = answer_of("cudaGetDeviceProperties", cudaGetDeviceProperties(&facts, current));
    static constexpr char digits[] = "0123456789abcdef";
    name = "GPU-";
    for (char const c : facts.uuid.bytes) {
      auto const byte = static_cast<unsigned char>(c);
      name += digits[byte >> 4];
      name += digits[byte & 15];
    }
    return a;
  }
  /// Leaves `device` unchanged for the default streams, and with toolkits that cannot query it.
  answer stream_device(stream_type stream, int& device) {
#if CUDART_VERSION >= 12080
    if (stream != nullptr && stream != cudaStreamLegacy && stream != cudaStreamPerThread)
      return answer_of("cudaStreamGetDevice", cudaStreamGetDevice(stream, &device));
#endif
    (void)stream, (void)device;
    return {};
  }

  /// With the highest priority: its kernels are few, and other work waits for them.
  answer make_stream(stream_type& stream) {
    int least = 0, greatest = 0;
    if (answer const a = answer_of("cudaDeviceGetStreamPriorityRange",
                                   cudaDeviceGetStreamPriorityRange(&least, &greatest));
        a.failed())
      return a;
    return answer_of("cudaStreamCreateWithPriority",
                     cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
  }
  answer drop_stream(stream_type stream) { return answer_of("cudaStreamDestroy", cudaStreamDestroy(stream)); }
  answer idle(stream_type stream) { return answer_of("cudaStreamQuery", cudaStreamQuery(stream)); }
  answer make_event(event_type& event) {
    return answer_of("cudaEventCreateWithFlags", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  answer drop_event(event_type event) { return answer_of("cudaEventDestroy", cudaEventDestroy(event)); }
  answer record(event_type event, stream_type stream) {
    return answer_of("cudaEventRecord", cudaEventRecord(event, stream));
  }
  answer wait(stream_type stream, event_type event) {
    return answer_of("cudaStreamWaitEvent", cudaStreamWaitEvent(stream, event, 0));
  }
  answer query(event_type event) { return answer_of("cudaEventQuery", cudaEventQuery(event)); }

  answer place_of(void const* p, memory_place& where) {
    cudaPointerAttributes facts;
    answer const a = answer_of("cudaPointerGetAttributes", cudaPointerGetAttributes(&facts, p));
    where.on_device =
        !a.failed() && (facts.type == cudaMemoryTypeDevice || facts.type == cudaMemoryTypeManaged);
    // Managed memory belongs to no device in particular.
    where.device = where.on_device && facts.type == cudaMemoryTypeManaged ? -1 : facts.device;
    return a;
  }
  /// In stream order, so that growing never waits for an operation in flight.
  answer allocate(void*& memory, std::size_t bytes, stream_type stream) {
    return answer_of("cudaMallocAsync", cudaMallocAsync(&memory, bytes, stream));
  }
  answer release(void* memory, stream_type stream) {
    return answer_of("cudaFreeAsync", cudaFreeAsync(memory, stream));
  }
  answer allocate_pinned(void*& memory, std::size_t bytes) {
    return answer_of("cudaHostAlloc", cudaHostAlloc(&memory, bytes, cudaHostAllocDefault));
  }
  answer release_pinned(void* memory) { return answer_of("cudaFreeHost", cudaFreeHost(memory)); }
  answer copy(void* to, void const* from, std::size_t bytes, stream_type stream) {
    return answer_of("cudaMemcpyAsync", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
  }
  answer call(stream_type stream, detail::host_function f, void* argument) {
    return answer_of("cudaLaunchHostFunc", cudaLaunchHostFunc(stream, f, argument));
  }

 private:
  // NCCL reads the list of a non-blocking shrink asynchronously.
  struct lost_ranks {
    std::vector<int> ranks{};
    void fill(std::span<int const> lost) { ranks.assign(lost.begin(), lost.end()); }
  };

  [[nodiscard]] static answer answer_of(char const* call, ncclResult_t result, comm_type comm = nullptr) {
    if (result == ncclSuccess) return {};
    if (result == ncclInProgress) return {state::pending};
    std::string reason = text(call, ": ", ncclGetErrorString(result));
    if (char const* const more = ncclGetLastError(comm); more && *more != '\0') reason += text(": ", more);
    return {state::failed, static_cast<int>(result), std::move(reason)};
  }
  [[nodiscard]] static answer answer_of(char const* call, cudaError_t result) {
    if (result == cudaSuccess) return {};
    // Clears the error, which is reported here, so that later checks do not see it.
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

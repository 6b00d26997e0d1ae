// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The calls of NCCL and CUDA that the backend uses, as a concept: implemented in nccl.hpp, and in tests by a
/// fake that runs on the host and fails on request.

#include <limber/comm/collective.hpp>
#include <limber/core/dtype.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <string>

namespace limber::nccl {

/// The state of a call.
enum class state : std::uint8_t { done, pending, failed };

/// The result of a call. Non-blocking NCCL calls return `pending`: poll until they are done.
struct answer {
  state is = state::done;
  int code = 0;          ///< the code of the library, for a failure
  std::string reason{};  ///< "ncclAllReduce: unhandled system error: …"

  [[nodiscard]] bool failed() const noexcept { return is == state::failed; }
  [[nodiscard]] bool pending() const noexcept { return is == state::pending; }
};

/// The id of a new communicator, made by rank 0 and passed to all ranks.
using unique_id = std::array<std::byte, 128>;

/// The location of memory.
struct memory_place {
  bool on_device = false;  ///< device or managed memory: NCCL can use it
  int device = 0;          ///< −1: any
};

namespace detail {

using host_function = void (*)(void*);

/// No call waits for another rank. Handles are pointers, or null.
///
///     can_revoke                  operations can be stopped without ending the communicator
///     device_name()               the same for two ranks only if they share a GPU
///     init, split, shrink         write the new handle at once or when the polled state turns done:
///                                 the location must stay valid until then
///     async_state(c)              pending while a call on c has not taken effect; failed once c has
///     revoke(c)                   stops c's operations; done when none touches memory any more
///     finalize, destroy, abort    finalize flushes and may be pending; abort ends c in whatever state
///     record(e, s), wait(s, e)    as cudaEventRecord, cudaStreamWaitEvent
///     query(e), idle(s)           pending until what was recorded, or enqueued, has run
///     copy(to, from, n, s)        between any two memories of which none is pageable
template <class E>
concept engine = std::copyable<E> &&
    requires(E& e, unique_id& id, typename E::comm_type& c, typename E::stream_type& s,
             typename E::event_type& v, void* p, void*& pp, void const* q, std::size_t n, int i, bool b,
             dtype t, reduction how, std::span<int const> ranks, memory_place& where, host_function f,
             std::string& name) {
  E::can_revoke;
  {e.make_id(id)};
  {e.init(c, i, id, i)};
  {e.async_state(c)};
  {e.split(c, i, i, c)};
  {e.shrink(c, ranks, b, c)};
  {e.revoke(c)};
  {e.finalize(c)};
  {e.destroy(c)};
  {e.abort(c)};
  {e.group_start()};
  {e.group_end()};
  {e.all_reduce(q, p, n, t, how, c, s)};
  {e.reduce_scatter(q, p, n, t, c, s)};
  {e.all_gather(q, p, n, t, c, s)};
  {e.broadcast(q, p, n, t, i, c, s)};
  {e.send(q, n, t, i, c, s)};
  {e.recv(p, n, t, i, c, s)};
  {e.register_buffer(c, p, n, pp)};
  {e.deregister_buffer(c, p)};
  {e.allocate_shared(pp, n)};
  {e.release_shared(p)};
  {e.device_count(i)};
  {e.device(i)};
  {e.use_device(i)};
  {e.device_name(name)};
  {e.stream_device(s, i)};
  {e.make_stream(s)};
  {e.drop_stream(s)};
  {e.idle(s)};
  {e.make_event(v)};
  {e.drop_event(v)};
  {e.record(v, s)};
  {e.wait(s, v)};
  {e.query(v)};
  {e.place_of(q, where)};
  {e.allocate(pp, n, s)};
  {e.release(p, s)};
  {e.allocate_pinned(pp, n)};
  {e.release_pinned(p)};
  {e.copy(p, q, n, s)};
  {e.call(s, f, p)};
};

}  // namespace detail
}  // namespace limber::nccl

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of the NCCL backend, its internal types, and the calls of NCCL and CUDA that it uses, as a
/// concept: implemented in nccl.hpp, and in tests by a fake that runs on the host and fails on request.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/nccl_bootstrap.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>

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
///
/// The calls and their arguments are those of nccl.hpp's driver.
template <class E>
concept engine = std::copyable<E> && requires {
  typename E::comm_type;
  typename E::stream_type;
  typename E::event_type;
  { E::can_revoke } -> std::convertible_to<bool>;
};

}  // namespace detail

struct options {
  double deadline = 60;                   ///< seconds of `clock` that an operation waits for the others, > 0
  double rendezvous_deadline = 300;       ///< seconds until all ranks must have met at the start, > 0
  clock_function clock = steady_seconds;  ///< on a virtual clock, give a `pause` that lets it advance
  /// Called between polls of an operation, except the first ones.
  pause_function pause = [] { std::this_thread::sleep_for(std::chrono::microseconds(20)); };
  kv_store notices{};  ///< carries revocations and the names of missing ranks; bootstrap_file's serves
  int device = -1;     ///< the GPU; −1: the local rank's, or the current one where that is not known
};

namespace detail {

using limber::detail::group_call;
using limber::detail::group_failure;
using limber::detail::operation;
using limber::detail::place;
using limber::detail::ranks_text;
using limber::detail::shared_group;
using limber::detail::signature;

/// A call, for error messages.
struct call {
  std::string_view name{};
  std::string_view bucket{};
  signature what{};
  int peer = -1;  ///< of send and recv

  [[nodiscard]] static call of(signature const& s, std::string_view bucket) {
    return {limber::detail::name_of(s.what), bucket, s};
  }
  [[nodiscard]] std::string describe() const {
    std::string out(name);
    if (peer >= 0)
      out += text(" of ", what.count, " ", limber::name_of(what.type), name == "send" ? " to" : " from",
                  " rank ", peer);
    else if (name == limber::detail::name_of(what.what))
      out = limber::detail::text_of(what);
    if (!bucket.empty()) out += text(" of '", bucket, "'");
    return out;
  }
};

/// The state of a communicator after a failure.
enum class end_state : std::uint8_t {
  none,     ///< alive
  revoked,  ///< operations are stopped; can be shrunk
  unclean,  ///< operations are stopped, but the revoke failed: shrink with the abort flag
  aborted,  ///< the communicator is destroyed
};

/// Makes `device` current for a scope.
template <engine E>
class on_device {
 public:
  on_device(E& e, int device) : engine_(e) {
    if (engine_.device(before_).failed()) before_ = device;
    if (before_ != device) changed_ = !engine_.use_device(device).failed();
  }
  on_device(on_device const&) = delete;
  on_device& operator=(on_device const&) = delete;
  ~on_device() {
    if (changed_) (void)engine_.use_device(before_);
  }

 private:
  E& engine_;
  int before_ = 0;
  bool changed_ = false;
};

struct slot;

/// An operation between its start and its wait.
template <engine E>
struct in_flight_op {
  detail::call made{};
  typename E::event_type event{};
  slot* staged = nullptr;
  tensor_view out{};  ///< host memory to which wait() copies the result
  i64 from = 0;       ///< the offset of the result in the pinned memory of the slot
  double since = -1;  ///< when waiting began
  bool open = false;  ///< not waited for yet
  bool complete = false;
};

}  // namespace detail
}  // namespace limber::nccl

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of the NCCL backend, its internal types, the calls of NCCL and CUDA that it uses, as a concept
/// (implemented in nccl.hpp, and in tests by a fake that runs on the host and fails on request), and staging
/// of host memory.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/nccl_bootstrap.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
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

namespace limber::nccl::detail {

/// Maps floats to integers such that −∞ < … < −0 < +0 < … < ∞ < NaN. Needed because ncclMax drops NaN.
[[nodiscard]] inline i64 key_of(double x) noexcept {
  if (x != x) return std::numeric_limits<i64>::max();
  i64 bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits < 0 ? bits ^ std::numeric_limits<i64>::max() : bits;
}
[[nodiscard]] inline double of_key(i64 key) noexcept {
  i64 const bits = key < 0 ? key ^ std::numeric_limits<i64>::max() : key;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/// Pinned and device memory for the operand and result of one operation. Pageable memory is never passed to a
/// copy after a collective: that would block the host, without a deadline, until the peers arrive.
struct slot {
  std::byte* pinned = nullptr;
  std::byte* device = nullptr;
  i64 capacity = 0;
  bool taken = false;

  // Where parts begin, for an operand of `in` bytes and a result of `out` bytes.
  i64 out_at = 0;

  // The arguments of the two host functions below.
  dtype type = dtype::f64;
  i64 length = 0;

  /// Bytes for both, each on a 256-byte boundary.
  [[nodiscard]] static i64 room(i64 in, i64 out) noexcept { return padded(in) + padded(out); }
  void arrange(i64 in) noexcept { out_at = padded(in); }

  [[nodiscard]] static i64 padded(i64 bytes) noexcept { return (bytes + 255) / 256 * 256; }
};

template <class T>
void to_keys(slot& s) noexcept {
  for (i64 i = 0; i < s.length; ++i) {
    T x;
    std::memcpy(&x, s.pinned + i * i64{sizeof(T)}, sizeof x);
    i64 const key = key_of(static_cast<double>(x));
    std::memcpy(s.pinned + s.out_at + i * i64{sizeof key}, &key, sizeof key);
  }
}
template <class T>
void from_keys(slot& s) noexcept {
  for (i64 i = 0; i < s.length; ++i) {
    i64 key;
    std::memcpy(&key, s.pinned + s.out_at + i * i64{sizeof key}, sizeof key);
    T const x = static_cast<T>(of_key(key));
    std::memcpy(s.pinned + i * i64{sizeof(T)}, &x, sizeof x);
  }
}

/// Host functions in stream order: numbers at the start of the pinned part become keys at `out_at`, and back.
inline void numbers_to_keys(void* p) noexcept {
  auto& s = *static_cast<slot*>(p);
  s.type == dtype::f64 ? to_keys<double>(s) : to_keys<float>(s);
}
inline void keys_to_numbers(void* p) noexcept {
  auto& s = *static_cast<slot*>(p);
  s.type == dtype::f64 ? from_keys<double>(s) : from_keys<float>(s);
}

/// A pool of slots, which grow on demand and are reused.
template <engine E>
class slot_pool {
 public:
  /// Takes a free slot of at least `bytes`.
  /// @param need  throws if the result of a call is a failure
  template <class Need>
  [[nodiscard]] slot* take(E& e, typename E::stream_type stream, i64 bytes, Need need) {
    slot* best = nullptr;
    for (auto& s : slots_)
      if (!s.taken && (!best || (best->capacity < bytes && s.capacity > best->capacity))) best = &s;
    if (!best) best = &slots_.emplace_back();
    if (best->capacity < bytes) grow(*best, e, stream, bytes, need);
    best->taken = true;
    return best;
  }

  void release(E& e, typename E::stream_type stream) noexcept {
    for (auto& s : slots_) free(s, e, stream);
    slots_.clear();
  }

 private:
  template <class Need>
  static void grow(slot& s, E& e, typename E::stream_type stream, i64 bytes, Need need) {
    free(s, e, stream);
    i64 capacity = 4096;
    while (capacity < bytes) capacity *= 2;
    void *pinned = nullptr, *device = nullptr;
    need(e.allocate_pinned(pinned, static_cast<std::size_t>(capacity)));
    s.pinned = static_cast<std::byte*>(pinned);
    need(e.allocate(device, static_cast<std::size_t>(capacity), stream));
    s.device = static_cast<std::byte*>(device);
    s.capacity = capacity;
  }
  static void free(slot& s, E& e, typename E::stream_type stream) noexcept {
    if (s.device) (void)e.release(s.device, stream);
    if (s.pinned) (void)e.release_pinned(s.pinned);
    s = {};
  }

  std::deque<slot> slots_;
};

}  // namespace limber::nccl::detail

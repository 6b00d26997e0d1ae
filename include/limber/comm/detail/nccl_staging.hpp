// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Staging of host memory, and the maximum of floats, for NCCL.

#include <limber/comm/detail/nccl_engine.hpp>
#include <limber/core/dtype.hpp>

#include <cstddef>
#include <cstring>
#include <deque>
#include <limits>

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

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One collective call, by Gloo.

#include <limber/comm/detail/gloo_mesh.hpp>
#include <limber/comm/detail/host_collective.hpp>
#include <limber/comm/detail/pairwise_reduction.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/core/fingerprint.hpp>

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>

namespace limber::gloo_engine::detail {

using limber::detail::operation;
using limber::detail::rank_buffers;
using limber::detail::signature;

/// The tag of call number `sequence`. Different calls never match (Gloo aborts the process if lengths
/// differ), nor do calls in flight at the same time.
[[nodiscard]] inline std::uint32_t tag_of(i64 sequence, signature const& s) noexcept {
  fingerprint f;
  f.mix(static_cast<i64>(s.what));
  f.mix(static_cast<i64>(s.how));
  f.mix(static_cast<i64>(s.type));
  f.mix(s.count);
  f.mix(static_cast<i64>(s.root));
  return (static_cast<std::uint32_t>(sequence) << 20) | static_cast<std::uint32_t>(f.value() >> 44);
}

template <class T>
void all_reduce(std::shared_ptr<mesh> const& context, reduction how, std::byte const* in, std::byte* out,
                i64 n, std::uint32_t tag) {
  ::gloo::AllreduceOptions o(context);
  // Gloo does not write to its inputs, but has no type that says so.
  o.setInput(const_cast<T*>(reinterpret_cast<T const*>(in)), static_cast<std::size_t>(n));
  o.setOutput(reinterpret_cast<T*>(out), static_cast<std::size_t>(n));
  using limber::detail::combine_pairs;
  void (*combine)(void*, void const*, void const*, std::size_t) = nullptr;
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>)
    combine = &combine_pairs<T, limber::detail::pair_sum<T>>;
  else if (how == reduction::max)
    combine = &combine_pairs<T, limber::detail::pair_max<T>>;
  else  // integers modulo 2^64, as integers are added everywhere else
    combine = &::gloo::sum<std::conditional_t<std::is_same_v<T, i64>, std::uint64_t, T>>;
  o.setReduceFunction(combine);
  o.setTag(tag);
  ::gloo::allreduce(o);
}

inline void all_reduce(std::shared_ptr<mesh> const& context, signature const& s, std::byte const* in,
                       std::byte* out, i64 n, std::uint32_t tag) {
  switch (s.type) {
    case dtype::f32: return all_reduce<float>(context, s.how, in, out, n, tag);
    case dtype::f64: return all_reduce<double>(context, s.how, in, out, n, tag);
    case dtype::bf16: return all_reduce<bf16>(context, s.how, in, out, n, tag);
    case dtype::f16: return all_reduce<f16>(context, s.how, in, out, n, tag);
    case dtype::int64: return all_reduce<i64>(context, s.how, in, out, n, tag);
    case dtype::uint8: return;  // refused by check_reducible
  }
}

/// Makes the call, and returns when it is complete. @throws wait_cancelled, connection_broken
inline void perform(std::shared_ptr<mesh> const& context, i64 sequence, signature const& s,
                    rank_buffers memory) {
  std::uint32_t const tag = tag_of(sequence, s);
  auto const bytes = static_cast<std::size_t>(s.count * size_of(s.type));
  if (bytes == 0 && s.what != operation::barrier) return;  // Gloo does not accept empty buffers
  auto* const in = const_cast<std::uint8_t*>(reinterpret_cast<std::uint8_t const*>(memory.in));
  auto* const out = reinterpret_cast<std::uint8_t*>(memory.out);
  switch (s.what) {
    case operation::all_reduce: return all_reduce(context, s, memory.in, memory.out, s.count, tag);
    case operation::reduce_scatter: {
      // Gloo's is bound to one buffer, so this reduces all blocks, and keeps this rank's.
      std::size_t const ranks = static_cast<std::size_t>(context->size);
      std::unique_ptr<std::byte[]> const all(new std::byte[ranks * bytes]);
      all_reduce(context, s, memory.in, all.get(), s.count * context->size, tag);
      std::memcpy(memory.out, all.get() + static_cast<std::size_t>(context->rank) * bytes, bytes);
      return;
    }
    case operation::all_gather:
    case operation::split: {
      ::gloo::AllgatherOptions o(context);
      o.setInput(in, bytes);
      o.setOutput(out, bytes * static_cast<std::size_t>(context->size));
      o.setTag(tag);
      return ::gloo::allgather(o);
    }
    case operation::broadcast: {
      ::gloo::BroadcastOptions o(context);
      o.setOutput(out, bytes);
      o.setRoot(s.root);
      o.setTag(tag);
      return ::gloo::broadcast(o);
    }
    case operation::barrier: {
      ::gloo::BarrierOptions o(context);
      o.setTag(tag);
      return ::gloo::barrier(o);
    }
  }
}

/// The same for a group of one.
inline void perform_alone(signature const& s, rank_buffers memory) {
  auto const bytes = static_cast<std::size_t>(s.count * size_of(s.type));
  if (bytes > 0 && memory.in != memory.out) std::memcpy(memory.out, memory.in, bytes);
}

}  // namespace limber::gloo_engine::detail

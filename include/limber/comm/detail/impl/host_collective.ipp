// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/host_collective.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/order.hpp>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace limber::detail {

LIMBER_FN i64 extent(signature const& s, int ranks) noexcept {
  switch (s.what) {
    case operation::all_reduce:
    case operation::broadcast: return s.count;
    case operation::reduce_scatter:
    case operation::all_gather: return s.count * ranks;
    case operation::barrier:
    case operation::split: return 0;
  }
  return 0;
}

/// The type of sums: float for narrow floats, integers modulo 2^64.
template <class T>
using accumulator = std::conditional_t<std::is_same_v<T, bf16> || std::is_same_v<T, f16>, float,
                                       std::conditional_t<std::is_same_v<T, i64>, std::uint64_t, T>>;

/// Reduces elements [first, first + count) of all inputs, count ≤ reduce_tile, in rank order: sums
/// start from rank 0's element (so −0 survives) and are rounded to T once at the end.
template <class T>
void reduce_elements(std::span<rank_buffers const> ranks, reduction how, i64 first, i64 count,
                     T* result) noexcept {
  using A = accumulator<T>;
  A sum[reduce_tile];
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    T const* const x = reinterpret_cast<T const*>(ranks[r].in) + first;
    if (r == 0)
      for (i64 i = 0; i < count; ++i) sum[i] = static_cast<A>(x[i]);
    else if (how == reduction::sum)
      for (i64 i = 0; i < count; ++i) sum[i] = static_cast<A>(sum[i] + static_cast<A>(x[i]));
    else if constexpr (!(std::is_same_v<T, bf16> || std::is_same_v<T, f16>))
      for (i64 i = 0; i < count; ++i) sum[i] = static_cast<A>(larger(static_cast<T>(sum[i]), x[i]));
  }
  for (i64 i = 0; i < count; ++i) result[i] = static_cast<T>(sum[i]);
}

/// Splits [first, last) at the ends of blocks of `count` elements: f(block, offset in it, elements).
template <class F>
void for_each_block(i64 first, i64 last, i64 count, F f) {
  while (first < last) {
    i64 const block = first / count, offset = first % count;
    i64 const n = least(count - offset, last - first);
    f(static_cast<std::size_t>(block), offset, n);
    first += n;
  }
}

template <class T>
void reduce_range(signature const& s, std::span<rank_buffers const> ranks, i64 first, i64 last) noexcept {
  T tile[reduce_tile];
  for (i64 i = first; i < last; i += reduce_tile) {
    i64 const n = least(reduce_tile, last - i);
    reduce_elements<T>(ranks, s.how, i, n, tile);
    if (s.what == operation::all_reduce) {
      for (rank_buffers const& r : ranks)
        std::memcpy(r.out + i * i64{sizeof(T)}, tile, static_cast<std::size_t>(n) * sizeof(T));
      continue;
    }
    for_each_block(i, i + n, s.count, [&](std::size_t owner, i64 offset, i64 length) {
      i64 const start = static_cast<i64>(owner) * s.count + offset - i;
      std::memcpy(ranks[owner].out + offset * i64{sizeof(T)}, tile + start,
                  static_cast<std::size_t>(length) * sizeof(T));
    });
  }
}

LIMBER_FN void perform(signature const& s, std::span<rank_buffers const> ranks, i64 first,
                       i64 last) noexcept {
  i64 const width = size_of(s.type);
  switch (s.what) {
    case operation::all_reduce:
    case operation::reduce_scatter:
      switch (s.type) {
        case dtype::f32: return reduce_range<float>(s, ranks, first, last);
        case dtype::f64: return reduce_range<double>(s, ranks, first, last);
        case dtype::bf16: return reduce_range<bf16>(s, ranks, first, last);
        case dtype::f16: return reduce_range<f16>(s, ranks, first, last);
        case dtype::int64: return reduce_range<i64>(s, ranks, first, last);
        case dtype::uint8: return;  // refused by check_reducible
      }
      return;
    case operation::all_gather:
      for_each_block(first, last, s.count, [&](std::size_t owner, i64 offset, i64 n) {
        i64 const start = static_cast<i64>(owner) * s.count + offset;
        for (rank_buffers const& r : ranks)
          std::memcpy(r.out + start * width, ranks[owner].in + offset * width,
                      static_cast<std::size_t>(n * width));
      });
      return;
    case operation::broadcast: {
      std::byte const* const source = ranks[static_cast<std::size_t>(s.root)].out;
      for (rank_buffers const& r : ranks)
        if (r.out != source)
          std::memcpy(r.out + first * width, source + first * width,
                      static_cast<std::size_t>((last - first) * width));
      return;
    }
    case operation::barrier:
    case operation::split: return;
  }
}

}  // namespace limber::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Between what lies in memory and what functors see: conversion of groups of elements, rounding.

#include <limber/core/dtype.hpp>
#include <limber/core/random.hpp>
#include <limber/cuda/unroll.hpp>
#include <limber/cuda/vector_access.hpp>

#include <type_traits>

namespace limber::gpu {

/// How stores round to 16 bits: to nearest even, or with random bits keyed by an element's index.
struct store_rounding {
  rounding const* round;  ///< per tensor; null: to nearest even
  i64 const* origin;      ///< per tensor, index of its first element; null: 0
  std::int32_t tensor;
};

namespace detail {

template <class To, class From>
[[nodiscard]] LIMBER_DETAIL_INLINE To bits_as(From const& from) noexcept {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// The hardware's conversions where it has them; they differ from the software's in NaNs alone.
[[nodiscard]] LIMBER_DETAIL_INLINE float from_f16(std::uint16_t bits) noexcept {
#if defined(__CUDA_ARCH__)
  if ((bits & 0x7c00u) != 0x7c00u) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
  }
#endif
  f16 h;
  h.bits = bits;
  return static_cast<float>(h);
}

[[nodiscard]] LIMBER_DETAIL_INLINE std::uint16_t to_f16(float x) noexcept {
#if defined(__CUDA_ARCH__)
  if (math::finite(x)) {
    std::uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
  }
#endif
  return f16(x).bits;
}

[[nodiscard]] LIMBER_DETAIL_INLINE float from_bf16(std::uint16_t bits) noexcept {
  return bits_as<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// 16 bits of `type` from x, the element with this index.
[[nodiscard]] LIMBER_DETAIL_INLINE std::uint16_t to_16_bits(dtype type, float x, store_rounding const& how,
                                                            i64 index) noexcept {
  if (how.round != nullptr && how.round[how.tensor].stochastic) {
    i64 const origin = how.origin != nullptr ? how.origin[how.tensor] : 0;
    std::uint32_t const random = how.round[how.tensor].bits(origin + index);
    return type == dtype::bf16 ? bf16(x, random).bits : f16(x, random).bits;
  }
  return type == dtype::bf16 ? bf16(x).bits : to_f16(x);
}

}  // namespace detail

/// Words that W elements take at most, when arithmetic is done in T.
template <class T, int W>
inline constexpr int most_words = W* static_cast<int>(sizeof(T)) / 4;

/// Reads W elements of `type` as they are: any type if W is 8, T alone if it is 4. @param p  of the first of
/// them
template <class T, int W>
LIMBER_DETAIL_INLINE void load_raw(std::byte const* p, dtype type, int width, std::uint32_t* raw) {
  if (type == dtype_of<T>)
    load_words<most_words<T, W>>(p, width, raw);
  else if (std::is_same_v<T, double> && type == dtype::f32)
    load_words<W>(p, width, raw);
  else if constexpr (W % 8 == 0)
    load_words<W / 2>(p, width, raw);
}

/// Converts what load_raw read.
template <class T, int W>
LIMBER_DETAIL_INLINE void unpack(std::uint32_t const* raw, dtype type, T* to) {
  if (type == dtype_of<T>) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < W; ++i) {
      if constexpr (std::is_same_v<T, double>)
        to[i] = detail::bits_as<double>(raw[2 * i] | (static_cast<std::uint64_t>(raw[2 * i + 1]) << 32));
      else
        to[i] = detail::bits_as<float>(raw[i]);
    }
  } else if (std::is_same_v<T, double> && type == dtype::f32) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < W; ++i) to[i] = math::convert<T>(detail::bits_as<float>(raw[i]));
  } else if (type == dtype::bf16) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < W; ++i)
      to[i] = math::convert<T>(detail::from_bf16(static_cast<std::uint16_t>(raw[i / 2] >> (i % 2 * 16))));
  } else {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < W; ++i)
      to[i] = math::convert<T>(detail::from_f16(static_cast<std::uint16_t>(raw[i / 2] >> (i % 2 * 16))));
  }
}

/// Converts W values and writes them. @param index  of the first of them in its tensor
template <class T, int W>
LIMBER_DETAIL_INLINE void store_values(std::byte* p, dtype type, int width, T const* from,
                                       store_rounding const& how, i64 index) {
  if (type == dtype_of<T>) {
    std::uint32_t raw[most_words<T, W>];
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < W; ++i) {
      if constexpr (std::is_same_v<T, double>) {
        auto const bits = detail::bits_as<std::uint64_t>(from[i]);
        raw[2 * i] = static_cast<std::uint32_t>(bits);
        raw[2 * i + 1] = static_cast<std::uint32_t>(bits >> 32);
      } else {
        raw[i] = detail::bits_as<std::uint32_t>(from[i]);
      }
    }
    return store_words<most_words<T, W>>(p, width, raw);
  }
  std::uint32_t raw[W];
  if (std::is_same_v<T, double> && type == dtype::f32) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < W; ++i) raw[i] = detail::bits_as<std::uint32_t>(math::convert<float>(from[i]));
    return store_words<W>(p, width, raw);
  }
  if constexpr (W % 8 == 0) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < W; i += 2)
      raw[i / 2] = detail::to_16_bits(type, math::convert<float>(from[i]), how, index + i) |
                   (static_cast<std::uint32_t>(
                        detail::to_16_bits(type, math::convert<float>(from[i + 1]), how, index + i + 1))
                    << 16);
    store_words<W / 2>(p, width, raw);
  }
}

/// One element. @param p  of that element
template <class T>
[[nodiscard]] LIMBER_DETAIL_INLINE T load_one(std::byte const* p, dtype type) {
  std::uint32_t raw[2];
  if (type == dtype::f64) {
    if constexpr (std::is_same_v<T, double>) {
      detail::load<8>(p, raw);
      return detail::bits_as<double>(raw[0] | (static_cast<std::uint64_t>(raw[1]) << 32));
    }
  }
  if (type == dtype::f32) {
    detail::load<4>(p, raw);
    return math::convert<T>(detail::bits_as<float>(raw[0]));
  }
  std::uint16_t const bits = detail::load_16_bits(p);
  return math::convert<T>(type == dtype::bf16 ? detail::from_bf16(bits) : detail::from_f16(bits));
}

template <class T>
LIMBER_DETAIL_INLINE void store_one(std::byte* p, dtype type, T x, store_rounding const& how, i64 index) {
  if (type == dtype::f64) {
    if constexpr (std::is_same_v<T, double>) {
      auto const bits = detail::bits_as<std::uint64_t>(x);
      std::uint32_t const raw[2] = {static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)};
      detail::store<8>(p, raw);
    }
    return;
  }
  if (type == dtype::f32) {
    auto const raw = detail::bits_as<std::uint32_t>(math::convert<float>(x));
    return detail::store<4>(p, &raw);
  }
  detail::store_16_bits(p, detail::to_16_bits(type, math::convert<float>(x), how, index));
}

}  // namespace limber::gpu

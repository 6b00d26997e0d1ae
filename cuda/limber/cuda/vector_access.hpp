// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Loads and stores of up to 16 bytes, on the device and in an emulation that is as strict.

#include <limber/core/config.hpp>
#include <limber/cuda/unroll.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace limber::gpu {

namespace detail {

template <int Bytes>
struct alignas(Bytes) packet {
  std::uint32_t w[Bytes / 4];
};
template <>
struct packet<2> {
  std::uint16_t w;
};

// A device traps on what a processor forgives.
template <int Bytes>
LIMBER_DETAIL_INLINE void check_alignment([[maybe_unused]] void const* p) {
#if !defined(__CUDA_ARCH__)
  if (reinterpret_cast<std::uintptr_t>(p) % Bytes != 0) throw std::logic_error("limber: misaligned access");
#endif
}

/// Reads `Bytes` at once, from an address that is a multiple of it.
template <int Bytes>
LIMBER_DETAIL_INLINE void load(std::byte const* p, std::uint32_t* to) {
  check_alignment<Bytes>(p);
#if defined(__CUDA_ARCH__)
  if constexpr (Bytes == 16) {
    // In PTX, because nvcc cuts some reads of 16 bytes into words. Not volatile: what nobody uses need not
    // be read, and no kernel reads an address again after it has written it.
    asm("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
        : "l"(__cvta_generic_to_global(p)));
  } else {
    auto const v = *reinterpret_cast<packet<Bytes> const*>(p);
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < Bytes / 4; ++i) to[i] = v.w[i];
  }
#else
  std::memcpy(to, p, Bytes);
#endif
}

template <int Bytes>
LIMBER_DETAIL_INLINE void store(std::byte* p, std::uint32_t const* from) {
  check_alignment<Bytes>(p);
#if defined(__CUDA_ARCH__)
  if constexpr (Bytes == 16) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(p)), "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
  } else {
    packet<Bytes> v;
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < Bytes / 4; ++i) v.w[i] = from[i];
    *reinterpret_cast<packet<Bytes>*>(p) = v;
  }
#else
  std::memcpy(p, from, Bytes);
#endif
}

LIMBER_DETAIL_INLINE std::uint16_t load_16_bits(std::byte const* p) {
  check_alignment<2>(p);
  std::uint16_t v;
#if defined(__CUDA_ARCH__)
  v = *reinterpret_cast<std::uint16_t const*>(p);
#else
  std::memcpy(&v, p, sizeof v);
#endif
  return v;
}

LIMBER_DETAIL_INLINE void store_16_bits(std::byte* p, std::uint16_t v) {
  check_alignment<2>(p);
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<std::uint16_t*>(p) = v;
#else
  std::memcpy(p, &v, sizeof v);
#endif
}

}  // namespace detail

/// Reads N words (a multiple of 4), `width` bytes at a time: 16, 8, 4 or 2; what is faster than the
/// address allows is an error on the host and a trap on a device.
template <int N>
LIMBER_DETAIL_INLINE void load_words(std::byte const* p, int width, std::uint32_t* to) {
  static_assert(N % 4 == 0);
  if (width == 16) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < N; i += 4) detail::load<16>(p + 4 * i, to + i);
  } else if (width == 8) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < N; i += 2) detail::load<8>(p + 4 * i, to + i);
  } else if (width == 4) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < N; ++i) detail::load<4>(p + 4 * i, to + i);
  } else {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < N; ++i)
      to[i] = detail::load_16_bits(p + 4 * i) |
              (static_cast<std::uint32_t>(detail::load_16_bits(p + 4 * i + 2)) << 16);
  }
}

/// Writes N words, `width` bytes at a time.
template <int N>
LIMBER_DETAIL_INLINE void store_words(std::byte* p, int width, std::uint32_t const* from) {
  static_assert(N % 4 == 0);
  if (width == 16) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < N; i += 4) detail::store<16>(p + 4 * i, from + i);
  } else if (width == 8) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < N; i += 2) detail::store<8>(p + 4 * i, from + i);
  } else if (width == 4) {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < N; ++i) detail::store<4>(p + 4 * i, from + i);
  } else {
    LIMBER_DETAIL_UNROLL
    for (int i = 0; i < N; ++i) {
      detail::store_16_bits(p + 4 * i, static_cast<std::uint16_t>(from[i] & 0xffffu));
      detail::store_16_bits(p + 4 * i + 2, static_cast<std::uint16_t>(from[i] >> 16));
    }
  }
}

}  // namespace limber::gpu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Element types: what tensors are stored in, and what arithmetic is done in.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/math.hpp>

#include <cstring>
#include <string_view>

namespace limber {

/// How an element is stored. Arithmetic is done in float for f32, bf16 and f16, in double for f64;
/// int64 and uint8 only travel (counts, counters, control blocks).
enum class dtype : std::uint8_t { f32, f64, bf16, f16, int64, uint8 };

[[nodiscard]] LIMBER_HD constexpr i64 size_of(dtype t) noexcept {
  switch (t) {
    case dtype::f32: return 4;
    case dtype::f64: return 8;
    case dtype::bf16: return 2;
    case dtype::f16: return 2;
    case dtype::int64: return 8;
    case dtype::uint8: return 1;
  }
  return 0;
}

[[nodiscard]] constexpr std::string_view name_of(dtype t) noexcept {
  switch (t) {
    case dtype::f32: return "f32";
    case dtype::f64: return "f64";
    case dtype::bf16: return "bf16";
    case dtype::f16: return "f16";
    case dtype::int64: return "int64";
    case dtype::uint8: return "uint8";
  }
  return "?";
}

[[nodiscard]] LIMBER_HD constexpr bool is_floating(dtype t) noexcept {
  return t != dtype::int64 && t != dtype::uint8;
}

/// The type that arithmetic on `t` is done in, and that state of it is kept in.
[[nodiscard]] LIMBER_HD constexpr dtype compute_type(dtype t) noexcept {
  return t == dtype::f64 ? dtype::f64 : is_floating(t) ? dtype::f32 : t;
}

namespace detail {

LIMBER_HD inline std::uint32_t to_bits(float x) noexcept {
  std::uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u;
}
LIMBER_HD inline float from_bits(std::uint32_t u) noexcept {
  float x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

#if defined(__CUDA_ARCH__)
// One instruction each, with the bits of the host's integer code (NaN payloads excepted). Inline PTX,
// because no compiler flag turns it into its .ftz form.
[[nodiscard]] __device__ inline std::uint16_t f16_from(float x) noexcept {
  std::uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}
[[nodiscard]] __device__ inline float float_from_f16(std::uint16_t h) noexcept {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
  return x;
}
#if __CUDA_ARCH__ >= 800
[[nodiscard]] __device__ inline std::uint16_t bf16_from(float x) noexcept {
  std::uint16_t h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}
#endif
#endif

}  // namespace detail

/// bfloat16 storage: the upper half of a float. Converts to float exactly, from float to nearest even.
///
/// `random` in [0, 65535] replaces the rounding constant and makes the rounding stochastic: x goes up
/// with probability equal to the share of the last place that is cut off. Infinities and NaNs stay
/// what they are; a finite value never becomes NaN. On a device the conversion to nearest even is one
/// instruction, with the same bits, but every NaN becomes the device's own; so with f16.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  LIMBER_HD explicit bf16(float x) noexcept : bits(nearest(x)) {}
  LIMBER_HD bf16(float x, std::uint32_t random) noexcept : bits(stochastic(x, random)) {}
  LIMBER_HD explicit operator float() const noexcept {
    return detail::from_bits(static_cast<std::uint32_t>(bits) << 16);
  }

 private:
  LIMBER_HD static std::uint16_t nearest(float x) noexcept {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return detail::bf16_from(x);
#else
    std::uint32_t const u = detail::to_bits(x);
    if (!math::finite(x)) return special(u);
    return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
#endif
  }
  LIMBER_HD static std::uint16_t stochastic(float x, std::uint32_t random) noexcept {
    std::uint32_t const u = detail::to_bits(x);
    if (!math::finite(x)) return special(u);
    return static_cast<std::uint16_t>((u + (random & 0xffffu)) >> 16);
  }
  LIMBER_HD static std::uint16_t special(std::uint32_t u) noexcept {
    bool const nan = (u & 0x007f'ffffu) != 0;
    return static_cast<std::uint16_t>((u >> 16) | (nan ? 0x0040u : 0u));
  }
};

/// IEEE half storage. Converts to float exactly (subnormals included), from float to nearest even.
///
/// `random` in [0, 65535]: stochastic rounding as for bf16, of subnormal results too. Overflow goes
/// to infinity: at 65520 when rounding to nearest, as the hardware does, at 65536 when stochastically.
struct f16 {
  std::uint16_t bits = 0;

  f16() = default;
  LIMBER_HD explicit f16(float x) noexcept : bits(nearest(x)) {}
  LIMBER_HD f16(float x, std::uint32_t random) noexcept : bits(convert(x, true, random)) {}
  LIMBER_HD explicit operator float() const noexcept {
#if defined(__CUDA_ARCH__)
    return detail::float_from_f16(bits);
#else
    std::uint32_t const sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    std::uint32_t const magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return detail::from_bits(sign | 0x7f80'0000u | ((magnitude & 0x3ffu) << 13));
    if (magnitude >= 0x0400u) return detail::from_bits(sign | ((magnitude << 13) + 0x3800'0000u));
    // A subnormal is a small integer times 2^-24: exact in float.
    float const value = static_cast<float>(magnitude) * math::power_of_two<float>(-24);
    return detail::from_bits(sign | detail::to_bits(value));
#endif
  }

 private:
  LIMBER_HD static std::uint16_t nearest(float x) noexcept {
#if defined(__CUDA_ARCH__)
    return detail::f16_from(x);
#else
    return convert(x, false, 0);
#endif
  }
  LIMBER_HD static std::uint16_t convert(float x, bool stochastic, std::uint32_t random) noexcept {
    std::uint32_t const u = detail::to_bits(x), a = u & 0x7fff'ffffu;
    auto const sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
    if (a > 0x7f80'0000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a == 0x7f80'0000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
    // `cut` low bits of the significand do not fit; a result below 2^-14 loses more of them.
    int const exponent = static_cast<int>(a >> 23) - 127;
    int const cut = exponent < -14 ? 13 + (-14 - exponent) : 13;
    if (cut > 39) return sign;  // below 2^-40: even a random carry of 16 bits cannot lift it
    std::uint64_t const significand = (a & 0x007f'ffffu) | (a >= 0x0080'0000u ? 0x0080'0000u : 0u);
    std::uint64_t const odd = (significand >> cut) & 1u;
    std::uint64_t const half = (std::uint64_t{1} << (cut - 1)) - 1 + odd;
    // 16 random bits scaled to the width that is cut off.
    std::uint64_t const noise = cut >= 16 ? static_cast<std::uint64_t>(random & 0xffffu) << (cut - 16)
                                          : (random & 0xffffu) >> (16 - cut);
    std::uint64_t const rounded = (significand + (stochastic ? noise : half)) >> cut;
    // The carry out of the significand moves into the exponent by itself.
    std::uint64_t const base = exponent < -14 ? 0 : static_cast<std::uint64_t>(exponent + 14) << 10;
    std::uint64_t const magnitude = base + rounded;
    return static_cast<std::uint16_t>(sign | (magnitude > 0x7c00u ? 0x7c00u : magnitude));
  }
};

/// The dtype of a C++ element type.
template <class T>
inline constexpr bool has_dtype = false;
template <>
inline constexpr bool has_dtype<float> = true;
template <>
inline constexpr bool has_dtype<double> = true;
template <>
inline constexpr bool has_dtype<bf16> = true;
template <>
inline constexpr bool has_dtype<f16> = true;
template <>
inline constexpr bool has_dtype<i64> = true;
template <>
inline constexpr bool has_dtype<std::uint8_t> = true;

template <class T>
  requires has_dtype<T>
inline constexpr dtype dtype_of = std::is_same_v<T, float>    ? dtype::f32
                                  : std::is_same_v<T, double> ? dtype::f64
                                  : std::is_same_v<T, bf16>   ? dtype::bf16
                                  : std::is_same_v<T, f16>    ? dtype::f16
                                  : std::is_same_v<T, i64>    ? dtype::int64
                                                              : dtype::uint8;

/// Calls f.template operator()<T>() with the element type that `t` names.
template <class F>
decltype(auto) with_type(dtype t, F&& f) {
  switch (t) {
    case dtype::f32: return f.template operator()<float>();
    case dtype::f64: return f.template operator()<double>();
    case dtype::bf16: return f.template operator()<bf16>();
    case dtype::f16: return f.template operator()<f16>();
    case dtype::int64: return f.template operator()<i64>();
    case dtype::uint8: return f.template operator()<std::uint8_t>();
  }
  throw std::invalid_argument("limber: dtype out of range");
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Bit-stable arithmetic: the only operations an update rule may use.
///
/// Each function is one correctly rounded operation (IEEE 754, to nearest even), on the host and on
/// the device, whatever contraction or fast-math flags a CUDA compilation carries. A rule written in
/// them gives the same bits everywhere. A bare `a * b + c` does not: compilers may fuse it. (Clang has
/// no barrier: it keeps the promise unless the user passes -ffp-contract=fast, which is not its default.)

#include <limber/core/config.hpp>

#include <cstring>
#include <type_traits>

// What <cmath> declares, without the 0.1 s that it costs a unit: the same functions of the same library.
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)
#define LIMBER_DETAIL_LIBM(name) __builtin_##name
#define LIMBER_DETAIL_LIBM_FLOAT(name) __builtin_##name##f
#else
#include <cmath>
#define LIMBER_DETAIL_LIBM(name) std::name
#define LIMBER_DETAIL_LIBM_FLOAT(name) std::name
#endif

namespace limber::math {

namespace detail {
#if defined(__has_builtin)
#if __has_builtin(__builtin_assoc_barrier) && !defined(__CUDACC__)
#define LIMBER_DETAIL_SINGLE(x) __builtin_assoc_barrier(x)
#endif
#endif
#ifndef LIMBER_DETAIL_SINGLE
#define LIMBER_DETAIL_SINGLE(x) (x)
#endif

// The exponent field, as an integer with all other bits cleared, and the field of infinity.
template <class T>
struct bits;
template <>
struct bits<float> {
  using type = std::uint32_t;
  static constexpr type magnitude = 0x7fff'ffffu, infinity = 0x7f80'0000u;
  static constexpr int mantissa = 23, bias = 127;
};
template <>
struct bits<double> {
  using type = std::uint64_t;
  static constexpr type magnitude = 0x7fff'ffff'ffff'ffffull, infinity = 0x7ff0'0000'0000'0000ull;
  static constexpr int mantissa = 52, bias = 1023;
};
}  // namespace detail

/// The bits of x without its sign: ordered as |x| is, NaNs above infinity.
template <class T>
[[nodiscard]] LIMBER_HD inline typename detail::bits<T>::type magnitude_bits(T x) noexcept {
  typename detail::bits<T>::type u;
  std::memcpy(&u, &x, sizeof u);
  return u & detail::bits<T>::magnitude;
}

/// True unless x is infinite or NaN; looks at exponent bits, so no compiler flag removes it.
template <class T>
[[nodiscard]] LIMBER_HD inline bool finite(T x) noexcept {
  return magnitude_bits(x) < detail::bits<T>::infinity;
}

#if defined(__CUDA_ARCH__)
// Inline PTX, because the _rn intrinsics turn into .ftz under --use_fast_math.
#define LIMBER_DETAIL_DEVICE(name)                                        \
  [[nodiscard]] __device__ inline float name(float a, float b) noexcept { \
    float r;                                                              \
    asm(#name ".rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));          \
    return r;                                                             \
  }                                                                       \
  [[nodiscard]] __device__ inline double name(double a, double b) noexcept { return __d##name##_rn(a, b); }
LIMBER_DETAIL_DEVICE(mul)
LIMBER_DETAIL_DEVICE(add)
LIMBER_DETAIL_DEVICE(sub)
LIMBER_DETAIL_DEVICE(div)
#undef LIMBER_DETAIL_DEVICE
[[nodiscard]] __device__ inline float fma(float a, float b, float c) noexcept {
  float r;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
}
[[nodiscard]] __device__ inline double fma(double a, double b, double c) noexcept {
  return __fma_rn(a, b, c);
}
[[nodiscard]] __device__ inline float sqrt(float a) noexcept {
  float r;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(a));
  return r;
}
[[nodiscard]] __device__ inline double sqrt(double a) noexcept { return __dsqrt_rn(a); }
#else
// The barrier keeps one operation one operation; the executor's loops are compiled without
// contraction besides, because GCC 12's vectoriser looks through the barrier.
template <class T>
[[nodiscard]] LIMBER_HD inline T mul(T a, T b) noexcept {
  return LIMBER_DETAIL_SINGLE(a * b);
}
template <class T>
[[nodiscard]] LIMBER_HD inline T add(T a, T b) noexcept {
  return LIMBER_DETAIL_SINGLE(a + b);
}
template <class T>
[[nodiscard]] LIMBER_HD inline T sub(T a, T b) noexcept {
  return LIMBER_DETAIL_SINGLE(a - b);
}
template <class T>
[[nodiscard]] LIMBER_HD inline T fma(T a, T b, T c) noexcept {
  if constexpr (sizeof(T) == sizeof(float))
    return LIMBER_DETAIL_LIBM_FLOAT(fma)(a, b, c);
  else
    return LIMBER_DETAIL_LIBM(fma)(a, b, c);
}
template <class T>
[[nodiscard]] LIMBER_HD inline T div(T a, T b) noexcept {
  return a / b;
}
template <class T>
[[nodiscard]] LIMBER_HD inline T sqrt(T a) noexcept {
  if constexpr (sizeof(T) == sizeof(float))
    return LIMBER_DETAIL_LIBM_FLOAT(sqrt)(a);
  else
    return LIMBER_DETAIL_LIBM(sqrt)(a);
}
#endif
#undef LIMBER_DETAIL_SINGLE

/// β a + (1 − β) b with one rounding less than it looks: fma(β, a − b, b).
template <class T>
[[nodiscard]] LIMBER_HD inline T lerp(T b, T a, T beta) noexcept {
  return math::fma(beta, math::sub(a, b), b);
}

/// |a|, the bits without the sign.
template <class T>
[[nodiscard]] LIMBER_HD inline T abs(T a) noexcept {
  auto const u = magnitude_bits(a);
  std::memcpy(&a, &u, sizeof a);
  return a;
}

/// a with the sign of b.
template <class T>
[[nodiscard]] LIMBER_HD inline T copysign(T a, T b) noexcept {
  typename detail::bits<T>::type u = magnitude_bits(a), v;
  std::memcpy(&v, &b, sizeof v);
  u |= v & ~detail::bits<T>::magnitude;
  std::memcpy(&a, &u, sizeof a);
  return a;
}

/// x in T: exact from float to double, to nearest even the other way. Subnormals stay.
template <class T>
[[nodiscard]] LIMBER_HD inline T convert(float x) noexcept {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == sizeof(double)) {
    double r;
    asm("cvt.f64.f32 %0, %1;" : "=d"(r) : "f"(x));
    return r;
  } else {
    return x;
  }
#else
  return static_cast<T>(x);
#endif
}
template <class T>
[[nodiscard]] LIMBER_HD inline T convert(double x) noexcept {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == sizeof(float)) {
    float r;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(r) : "d"(x));
    return r;
  } else {
    return x;
  }
#else
  return static_cast<T>(x);
#endif
}

/// True if x is 0 or −0.
template <class T>
[[nodiscard]] LIMBER_HD inline bool is_zero(T x) noexcept {
  return magnitude_bits(x) == 0;
}

/// a < b; subnormals are not zero here either.
template <class T>
[[nodiscard]] LIMBER_HD constexpr bool less(T a, T b) noexcept {
  return a < b;
}
#if defined(__CUDA_ARCH__)
[[nodiscard]] __device__ inline bool less(float a, float b) noexcept {
  int r;
  asm("{ .reg .pred p; setp.lt.f32 p, %1, %2; selp.s32 %0, 1, 0, p; }" : "=r"(r) : "f"(a), "f"(b));
  return r != 0;
}
#endif

/// The larger of a and b; a when they compare equal.
template <class T>
[[nodiscard]] LIMBER_HD constexpr T max(T a, T b) noexcept {
  return math::less(a, b) ? b : a;
}

/// The smaller of a and b; a when they compare equal.
template <class T>
[[nodiscard]] LIMBER_HD constexpr T min(T a, T b) noexcept {
  return math::less(b, a) ? b : a;
}

/// x limited to [low, high].
template <class T>
[[nodiscard]] LIMBER_HD constexpr T clamp(T x, T low, T high) noexcept {
  return math::min(math::max(x, low), high);
}

/// 2^e exactly, for e in the range of normal numbers of T.
template <class T>
[[nodiscard]] LIMBER_HD inline T power_of_two(int e) noexcept {
  using B = detail::bits<T>;
  auto const u = static_cast<typename B::type>(e + B::bias) << B::mantissa;
  T x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

// Functions of the mathematical library, in double. Those that are no single operation (all but `floor`,
// `fmod` and `ldexp`) may differ by a rounding between libraries and devices: never in an element's update.
[[nodiscard]] LIMBER_HD inline double floor(double x) noexcept { return LIMBER_DETAIL_LIBM(floor)(x); }
[[nodiscard]] LIMBER_HD inline double fmod(double x, double y) noexcept {
  return LIMBER_DETAIL_LIBM(fmod)(x, y);
}
[[nodiscard]] LIMBER_HD inline double ldexp(double x, int e) noexcept {
  return LIMBER_DETAIL_LIBM(ldexp)(x, e);
}
[[nodiscard]] LIMBER_HD inline double pow(double x, double y) noexcept {
  return LIMBER_DETAIL_LIBM(pow)(x, y);
}
[[nodiscard]] LIMBER_HD inline double exp(double x) noexcept { return LIMBER_DETAIL_LIBM(exp)(x); }
[[nodiscard]] LIMBER_HD inline double expm1(double x) noexcept { return LIMBER_DETAIL_LIBM(expm1)(x); }
[[nodiscard]] LIMBER_HD inline double log(double x) noexcept { return LIMBER_DETAIL_LIBM(log)(x); }
[[nodiscard]] LIMBER_HD inline double log1p(double x) noexcept { return LIMBER_DETAIL_LIBM(log1p)(x); }
[[nodiscard]] LIMBER_HD inline double cos(double x) noexcept { return LIMBER_DETAIL_LIBM(cos)(x); }
#undef LIMBER_DETAIL_LIBM
#undef LIMBER_DETAIL_LIBM_FLOAT

}  // namespace limber::math

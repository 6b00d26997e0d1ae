// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The codec of `reproducible` for host memory: exponents of blocks, and conversion to fixed point.

#include <limber/core/dtype.hpp>
#include <limber/core/exponent_block.hpp>
#include <limber/core/fixed_point.hpp>
#include <limber/core/piece.hpp>
#include <limber/core/tensor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

// As in fuse/host_loop.hpp: compiled twice and selected at run time. All arithmetic is integer, so the bits
// are equal.
#if defined(__x86_64__) && !defined(__CUDACC__)
#if defined(__clang__)
#define LIMBER_DETAIL_CODEC_WIDE __attribute__((target("avx2"), flatten))
#elif defined(__GNUC__)
#define LIMBER_DETAIL_CODEC_WIDE __attribute__((target("avx2"), optimize("O3"), flatten))
#endif
#endif

namespace limber::detail {

template <class T>
inline std::uint32_t largest_plain(fixed_point::word<T> const* x, i64 n) noexcept {
  constexpr auto magnitude = static_cast<fixed_point::word<T>>(~fixed_point::word<T>{0}) >> 1;
  std::uint32_t most = 0;
  for (i64 i = 0; i < n; ++i) most = std::max<std::uint32_t>(most, x[i] & magnitude);
  return most;
}
template <class T>
inline void encode_plain(fixed_point::word<T> const* __restrict x, i64* __restrict y, i64 n,
                         int unit) noexcept {
  for (i64 i = 0; i < n; ++i) y[i] = fixed_point::encode<T>(x[i], unit);
}
template <class T>
inline void decode_plain(i64 const* __restrict x, fixed_point::word<T>* __restrict y, i64 n,
                         int unit) noexcept {
  // No value can be subnormal or infinite: the conversion rounds once, and the product is exact.
  if constexpr (std::is_same_v<T, float>)
    if (unit >= -126 && unit <= 60) {
      float const scale = math::power_of_two<float>(unit);
      for (i64 i = 0; i < n; ++i) y[i] = detail::to_bits(static_cast<float>(x[i]) * scale);
      return;
    }
  for (i64 i = 0; i < n; ++i) y[i] = fixed_point::decode<T>(x[i], unit);
}

#if defined(LIMBER_DETAIL_CODEC_WIDE)
template <class F>
LIMBER_DETAIL_CODEC_WIDE inline auto run_wide(F f) noexcept {
  return f();
}
#endif

/// Calls one of the functions above, at the width that the processor has.
template <class F>
inline auto run_codec(F f) noexcept {
#if defined(LIMBER_DETAIL_CODEC_WIDE)
  static bool const is_wide = __builtin_cpu_supports("avx2");
  if (is_wide) return run_wide(f);
#endif
  return f();
}

}  // namespace limber::detail

namespace limber {

/// Reads and writes tensors in host memory for `reproducible`. Codecs for other memory (gpu::codec) have the
/// same members; their arithmetic is core/fixed_point.hpp, which runs on devices, too.
struct host_codec {
  /// Memory that the engine reads and writes; grows and is reused.
  template <class T>
  using buffer = std::vector<T>;

  /// At least n elements with unspecified values.
  template <class T>
  [[nodiscard]] static T* reserve(buffer<T>& b, i64 n) {
    if (std::ssize(b) < n) b.resize(static_cast<std::size_t>(n));
    return b.data();
  }
  /// Waits until written data may be read by the engine, and decoded data by others.
  static void settle() noexcept {}

  /// Two words before the exponents, by which ranks detect different calls.
  static void put_marks(float* words, float mark) noexcept { words[0] = mark, words[1] = -mark; }
  [[nodiscard]] static std::pair<float, float> marks(float const* words) noexcept {
    return {words[0], words[1]};
  }
  /// Short vectors of doubles, to and from the host.
  static void read(double const* from, std::span<double> to) {
    std::ranges::copy_n(from, std::ssize(to), to.begin());
  }
  static void write(std::span<double const> from, double* to) { std::ranges::copy(from, to); }

  /// exponents[k] = the largest of block k, 255 where something is not finite.
  static void scan(const_tensor_view in, std::span<piece const> pieces, float* exponents) {
    detail::with_fixed_point_type(in.type, [&]<class T>() {
      auto const* const x = reinterpret_cast<fixed_point::word<T> const*>(in.data);
      detail::for_each_exponent(pieces, [&](i64 block, i64 from, i64, i64 n) {
        exponents[block] = static_cast<float>(fixed_point::exponent_of<T>(
            detail::run_codec([=] { return detail::largest_plain<T>(x + from, n); })));
      });
    });
  }

  /// Encodes the elements of all pieces consecutively, in the unit of their block.
  static void encode(const_tensor_view in, std::span<piece const> pieces, float const* exponents, int guard,
                     i64* fixed) {
    detail::with_fixed_point_type(in.type, [&]<class T>() {
      auto const* const x = reinterpret_cast<fixed_point::word<T> const*>(in.data);
      detail::for_each_exponent(pieces, [&](i64 block, i64 from, i64 run, i64 n) {
        auto const exponent = static_cast<int>(exponents[block]);
        if (exponent < 255)
          detail::run_codec([=, unit = fixed_point::unit_of(exponent, guard)] {
            detail::encode_plain<T>(x + from, fixed + run, n, unit);
          });
        else
          std::fill_n(fixed + run, n, 0);
      });
    });
  }

  /// The inverse of encode; NaN where the exponent is 255.
  static void decode(i64 const* fixed, std::span<piece const> pieces, float const* exponents, int guard,
                     tensor_view out) {
    detail::with_fixed_point_type(out.type, [&]<class T>() {
      auto* const y = reinterpret_cast<fixed_point::word<T>*>(out.data);
      detail::for_each_exponent(pieces, [&](i64 block, i64 to, i64 run, i64 n) {
        auto const exponent = static_cast<int>(exponents[block]);
        if (exponent < 255)
          detail::run_codec([=, unit = fixed_point::unit_of(exponent, guard)] {
            detail::decode_plain<T>(fixed + run, y + to, n, unit);
          });
        else
          std::fill_n(y + to, n, fixed_point::nan<T>);
      });
    });
  }
};

}  // namespace limber

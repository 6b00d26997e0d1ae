// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The kernel bodies of `codec`: one warp for each exponent, integer arithmetic alone.

#include <limber/core/fixed_point.hpp>
#include <limber/cuda/unroll.hpp>
#include <limber/cuda/warp.hpp>

#include <cstdint>

namespace limber::gpu {

/// Elements that share an exponent.
struct exponent_run {
  i64 from = 0;   ///< the first, in the view
  i64 fixed = 0;  ///< the first, among the integers
  i64 n = 0;
};

/// exponents[k] = the largest of run k, 255 where something is not finite.
template <class T>
struct scan_body {
  static constexpr char const* name = "limber reproducible scan";

  fixed_point::word<T> const* x;
  exponent_run const* runs;
  float* exponents;

  LIMBER_NO_EXEC_CHECK
  template <class W>
  LIMBER_DETAIL_INLINE void operator()(W const& w, i64 item) const {
    constexpr auto magnitude = static_cast<std::uint32_t>(static_cast<fixed_point::word<T>>(-1)) >> 1;
    exponent_run const run = runs[item];
    typename W::template per_lane<std::uint32_t> most{};
    w.for_lanes([&](int lane) {
      std::uint32_t all = 0;
      for (i64 i = lane; i < run.n; i += warp_lanes) {
        std::uint32_t const m = x[run.from + i] & magnitude;
        all = m > all ? m : all;
      }
      W::own(most, lane) = all;
    });
    LIMBER_DETAIL_UNROLL
    for (int d = warp_lanes / 2; d > 0; d /= 2)
      w.fold(most, d, [](std::uint32_t a, std::uint32_t b) { return a > b ? a : b; });
    w.for_lanes([&](int lane) {
      if (lane == 0) exponents[item] = static_cast<float>(fixed_point::exponent_of<T>(W::own(most, lane)));
    });
  }
};

/// The elements of all runs, one behind the other, in the unit of their run.
template <class T>
struct encode_body {
  static constexpr char const* name = "limber reproducible encode";

  fixed_point::word<T> const* x;
  exponent_run const* runs;
  float const* exponents;
  int guard;
  i64* fixed;

  LIMBER_NO_EXEC_CHECK
  template <class W>
  LIMBER_DETAIL_INLINE void operator()(W const& w, i64 item) const {
    exponent_run const run = runs[item];
    int const exponent = static_cast<int>(exponents[item]), unit = fixed_point::unit_of(exponent, guard);
    w.for_lanes([&](int lane) {
      for (i64 i = lane; i < run.n; i += warp_lanes)
        fixed[run.fixed + i] = exponent < 255 ? fixed_point::encode<T>(x[run.from + i], unit) : 0;
    });
  }
};

/// And back: NaN where the exponent is 255.
template <class T>
struct decode_body {
  static constexpr char const* name = "limber reproducible decode";

  i64 const* fixed;
  exponent_run const* runs;
  float const* exponents;
  int guard;
  fixed_point::word<T>* y;

  LIMBER_NO_EXEC_CHECK
  template <class W>
  LIMBER_DETAIL_INLINE void operator()(W const& w, i64 item) const {
    exponent_run const run = runs[item];
    int const exponent = static_cast<int>(exponents[item]), unit = fixed_point::unit_of(exponent, guard);
    w.for_lanes([&](int lane) {
      for (i64 i = lane; i < run.n; i += warp_lanes)
        y[run.from + i] =
            exponent < 255 ? fixed_point::decode<T>(fixed[run.fixed + i], unit) : fixed_point::nan<T>;
    });
  }
};

/// words = {mark, −mark}.
struct put_two {
  float* words;
  float mark;
  LIMBER_HD void operator()(i64 i) const { words[i] = i == 0 ? mark : -mark; }
};

}  // namespace limber::gpu

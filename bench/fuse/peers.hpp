// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The same steps as somebody would write them by hand: a loop per tensor, arithmetic of the compiler's
/// choice. `fused` are plain loops for one stretch of one tensor, `norm` is the plain sum of squares.

#include <limber/core/dtype.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace limber::bench {

inline constexpr i64 lanes = 64;  ///< partial sums, so that the compiler may vectorise without reordering

inline float load(float x) noexcept { return x; }
inline float load(bf16 x) noexcept { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }
inline void store(float& to, float x) noexcept { to = x; }
inline void store(bf16& to, float x) noexcept {
  auto const u = std::bit_cast<std::uint32_t>(x);
  to.bits = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/// Calls body(i, lane) for i in [0, n).
template <class Body>
inline void in_lanes(i64 n, Body const& body) {
  i64 i = 0;
  for (; i + lanes <= n; i += lanes)
    for (i64 k = 0; k < lanes; ++k) body(i + k, k);
  for (i64 k = 0; i + k < n; ++k) body(i + k, k);
}

inline double sum_of(std::array<float, lanes> const& s) {
  double out = 0;
  for (float const x : s) out += static_cast<double>(x);
  return out;
}

/// Σ x².
template <class S>
double norm(S const* x, i64 n) {
  double out = 0;
  for (i64 at = 0; at < n; at += 4096) {
    std::array<float, lanes> sum{};
    auto const* const y = x + at;
    in_lanes(std::min<i64>(4096, n - at), [&](i64 i, i64 k) {
      float const v = load(y[i]);
      sum[static_cast<std::size_t>(k)] += v * v;
    });
    out += sum_of(sum);
  }
  return out;
}

/// The hyper-parameters of all steps in here.
struct settings {
  float rate = 1e-3f, momentum = 0.9f, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, decay = 0.01f;
};

/// What Adam needs at step t, on top.
struct adam_step {
  settings s;
  float step, rsqrt_bias2;
  adam_step(settings const& given, i64 t)
      : s(given),
        step(given.rate / (1 - std::pow(given.beta1, static_cast<float>(t)))),
        rsqrt_bias2(1 / std::sqrt(1 - std::pow(given.beta2, static_cast<float>(t)))) {}

  /// m̂ / (√v̂ + ε), but for 1 / (1 − β₁ᵗ).
  float direction(float g, float& m, float& v) const noexcept {
    m = s.beta1 * m + (1 - s.beta1) * g;
    v = s.beta2 * v + (1 - s.beta2) * g * g;
    return m / (std::sqrt(v) * rsqrt_bias2 + s.eps);
  }
};

inline void fused_sgd(settings s, float scale, i64 n, float* __restrict p, float* __restrict g,
                      float* __restrict v) {
  for (i64 i = 0; i < n; ++i) {
    v[i] = s.momentum * v[i] + scale * g[i];
    p[i] -= s.rate * v[i];
    g[i] = 0;
  }
}

inline void fused_adamw(adam_step a, i64 n, float* __restrict p, float* __restrict g, float* __restrict m,
                        float* __restrict v) {
  for (i64 i = 0; i < n; ++i) {
    float const d = a.direction(g[i], m[i], v[i]);
    p[i] -= a.step * d + a.s.rate * a.s.decay * p[i];
    g[i] = 0;
  }
}

inline void fused_master_adamw(adam_step a, i64 n, bf16* __restrict p, bf16* __restrict g,
                               float* __restrict w, float* __restrict m, float* __restrict v) {
  for (i64 i = 0; i < n; ++i) {
    float const d = a.direction(load(g[i]), m[i], v[i]);
    w[i] -= a.step * d + a.s.rate * a.s.decay * w[i];
    store(p[i], w[i]);
    g[i].bits = 0;
  }
}

/// ‖p‖² and ‖d‖² of a stretch.
struct lamb_sums {
  double p = 0, d = 0;
};

/// LAMB's first pass: g ← d.
inline lamb_sums fused_lamb_direction(adam_step a, i64 n, float const* __restrict p, float* __restrict g,
                                      float* __restrict m, float* __restrict v) {
  std::array<float, lanes> sum_p{}, sum_d{};
  in_lanes(n, [&](i64 i, i64 k) {
    float const d = a.direction(g[i], m[i], v[i]) * (a.step / a.s.rate) + a.s.decay * p[i];
    g[i] = d;
    sum_p[static_cast<std::size_t>(k)] += p[i] * p[i];
    sum_d[static_cast<std::size_t>(k)] += d * d;
  });
  return {sum_of(sum_p), sum_of(sum_d)};
}

inline void fused_lamb_apply(float step, i64 n, float* __restrict p, float* __restrict d) {
  for (i64 i = 0; i < n; ++i) {
    p[i] -= step * d[i];
    d[i] = 0;
  }
}

}  // namespace limber::bench

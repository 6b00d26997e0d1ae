// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The bytes per element that each kernel must move, in all launches together, whoever does the task.

#include <limber/core/dtype.hpp>

namespace limber::bench {

/// Bytes per element.
struct traffic {
  i64 read = 0, written = 0;

  friend constexpr traffic operator+(traffic a, traffic b) noexcept {
    return {a.read + b.read, a.written + b.written};
  }
  [[nodiscard]] constexpr i64 both() const noexcept { return read + written; }
};

/// Formulas by kernel. s is the storage of parameters and gradients, or of the wire; state is in f32.
///
///                                read                          written            f32    bf16
///     norm                       x                                                  4       2
///     sgd, nesterov              p g v                         p v                 20      14
///     adamw                      p g m v                       p m v               28      22
///     sgd-step                   g (norm), p g v               p g v               28
///     adamw-step                 g (norm), p g m v             p g m v             36
///     lamb-step, clipped or not  g (norm), p g m v, p d        g m v, p g          48
///     master-sgd-step            g (norm), g w v               w v p g                     30, g is f32
///     master-adamw-step          g (norm), g w m v             w m v p g                   32
///     pack                       g                             sum g               12      10, g is f32
///     unpack                     sum                           g                    8       6, g is f32
///     accumulate                 sum g                         sum                 12      10, sum is f32
///     blend                      to from                       to                  12       6
///     difference                 anchor x                      d                   12      10, d is bf16
///
/// A `-step` is fused_step: advance, norm with finite test, update with zeroed gradient. What is not a step
/// is that launch alone: no finite test, gradients kept.
namespace traffic_of {

inline constexpr i64 f = 4;  ///< an element of state

constexpr traffic norm(i64 s) noexcept { return {s, 0}; }
constexpr traffic sgd(i64 s) noexcept { return {2 * s + f, s + f}; }
constexpr traffic adamw(i64 s) noexcept { return {2 * s + 2 * f, s + 2 * f}; }

constexpr traffic zeroing(i64 g) noexcept { return {0, g}; }
constexpr traffic sgd_step() noexcept { return norm(f) + sgd(f) + zeroing(f); }
constexpr traffic adamw_step() noexcept { return norm(f) + adamw(f) + zeroing(f); }
/// The direction lies where the gradient was; the moments are not touched again.
constexpr traffic lamb_step() noexcept { return norm(f) + traffic{4 * f, 3 * f} + traffic{2 * f, 2 * f}; }
/// w is the master of p; p is only written. @param slots  f32 state besides w
constexpr traffic master_step(i64 p, i64 g, i64 slots) noexcept {
  return norm(g) + traffic{g + f * (1 + slots), f * (1 + slots) + p} + zeroing(g);
}

constexpr traffic pack(i64 wire) noexcept { return {f, wire + f}; }
constexpr traffic unpack(i64 wire) noexcept { return {wire, f}; }
constexpr traffic accumulate(i64 wire) noexcept { return {f + wire, f}; }
constexpr traffic blend(i64 s) noexcept { return {2 * s, s}; }
constexpr traffic difference(i64 wire) noexcept { return {2 * f, wire}; }

}  // namespace traffic_of
}  // namespace limber::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Which elements of a view share an exponent in fixed point, on the host and on devices.

#include <limber/core/dtype.hpp>
#include <limber/core/piece.hpp>

#include <span>

namespace limber::detail {

/// Elements of one exponent, counted from the start of each tensor.
inline constexpr i64 exponent_block = 256;
static_assert(4096 % exponent_block == 0, "tensors are cut at leaves, which must hold whole blocks");

[[nodiscard]] inline i64 blocks_of(std::span<piece const> pieces) noexcept {
  i64 n = 0;
  for (auto const& p : pieces) n += (p.length + exponent_block - 1) / exponent_block;
  return n;
}
[[nodiscard]] inline i64 elements_of(std::span<piece const> pieces) noexcept {
  i64 n = 0;
  for (auto const& p : pieces) n += p.length;
  return n;
}

/// f(block, first element in the view, first element in the encoded run, elements) for all blocks.
template <class F>
void for_each_exponent(std::span<piece const> pieces, F const& f) {
  i64 block = 0, run = 0;
  for (auto const& p : pieces)
    for (i64 done = 0; done < p.length; done += exponent_block) {
      i64 const n = p.length - done < exponent_block ? p.length - done : exponent_block;
      f(block++, p.offset + done, run, n);
      run += n;
    }
}

/// Calls f.operator()<T>() with the type that `t` names. @pre f32, bf16 or f16
template <class F>
void with_fixed_point_type(dtype t, F const& f) {
  if (t == dtype::f32) return f.template operator()<float>();
  if (t == dtype::bf16) return f.template operator()<bf16>();
  f.template operator()<f16>();
}

}  // namespace limber::detail

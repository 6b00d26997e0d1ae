// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A list of tensors as kernels see it: where each tensor is, of what type, how it may be accessed.

#include <limber/core/tensor.hpp>
#include <limber/fuse/executor.hpp>

#include <cstdint>

namespace limber::gpu {

/// Bytes of the widest access.
inline constexpr int widest = 16;

/// One tensor of a list.
struct alignas(16) operand_entry {
  std::byte* data;
  dtype type;
  std::uint8_t width;    ///< bytes of the widest access that its address allows
  std::uint8_t phase;    ///< elements before the first that lies on a multiple of 16 bytes
  std::uint8_t modulus;  ///< elements in 16 bytes
};

/// The entry of a tensor; an empty one may lie anywhere.
/// @throws std::invalid_argument naming the tensor: a null pointer, or not aligned to its elements
[[nodiscard]] inline operand_entry entry_of(tensor_view const& t) {
  auto const size = static_cast<std::uintptr_t>(size_of(t.type));
  auto const modulus = static_cast<std::uint8_t>(widest / size);
  if (t.length == 0) return {t.data, t.type, widest, 0, modulus};
  expects(t.data != nullptr, "executor: '", t.name, "' is a null pointer");
  auto const at = reinterpret_cast<std::uintptr_t>(t.data);
  expects(at % size == 0, "executor: '", t.name, "' lies at an address that is not a multiple of ", size,
          ", the size of a ", name_of(t.type));
  std::uintptr_t width = widest;
  while (at % width != 0) width /= 2;
  return {t.data, t.type, static_cast<std::uint8_t>(width),
          static_cast<std::uint8_t>((widest - at % widest) % widest / size), modulus};
}

/// A list in a launch: its table, and what rounds its 16-bit stores. All on the executor's side.
struct operand_binding {
  operand_entry const* table = nullptr;
  rounding const* round = nullptr;
  i64 const* origin = nullptr;
};

}  // namespace limber::gpu

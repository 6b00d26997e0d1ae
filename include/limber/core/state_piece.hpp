// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A piece of state: what hand-over, merging and checkpoints are shown by `visit`.

#include <limber/core/kinds.hpp>
#include <limber/core/tensor.hpp>

#include <string>
#include <type_traits>
#include <utility>

namespace limber {

/// A piece of state: its name, how it relates to the same piece elsewhere, and its memory.
struct state_piece {
  std::string name;
  kept how = kept::replicated;
  tensor_view data;
};

/// A control block in the host's memory as a piece of state: its bytes.
template <class T>
  requires std::is_trivially_copyable_v<T>
[[nodiscard]] state_piece block_piece(std::string name, T& block, kept how = kept::replicated) {
  return {std::move(name),
          how,
          {reinterpret_cast<std::byte*>(&block), static_cast<i64>(sizeof block), dtype::uint8, {}}};
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Small arrays that the host and an executor both see: coefficients, counters, norms.

#include <limber/core/box.hpp>
#include <limber/core/config.hpp>

#include <cstddef>
#include <type_traits>

namespace limber {

/// n values with a host side and an executor's side; the same memory where the executor is the host.
///
/// Made by an executor's `share<T>(n)`, all bytes zero on both sides. `publish` brings what the host
/// wrote to the executor, `collect` brings back what kernels wrote. Kernels get `device`, never `host`.
/// Copies share the memory.
template <class T>
struct shared_array {
  static_assert(std::is_trivially_copyable_v<T>);

  T* host = nullptr;
  T* device = nullptr;
  i64 n = 0;
  detail::shared_owner owner{};

  [[nodiscard]] i64 bytes() const noexcept { return n * static_cast<i64>(sizeof(T)); }
  [[nodiscard]] T& operator[](std::size_t i) const noexcept { return host[i]; }
  /// The same memory as values of another type. @pre it has their size and alignment
  template <class U>
  [[nodiscard]] shared_array<U> as() const {
    return {reinterpret_cast<U*>(host), reinterpret_cast<U*>(device), bytes() / static_cast<i64>(sizeof(U)),
            owner};
  }
};

}  // namespace limber

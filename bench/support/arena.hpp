// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Memory that all cases of a program share, and what fills it.

#include <limber/core/tensor.hpp>
#include <limber/fuse/host.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

namespace limber::bench {

/// One block, reserved at its largest size and mapped once: a case takes what it needs from its start,
/// so that no case pays for fresh pages and all see the same ones.
class arena {
 public:
  static constexpr i64 line = 64;

  static arena& shared() {
    static arena one;
    return one;
  }

  /// What a case will take, in bytes. Called before the first `clear`.
  void reserve(i64 bytes) { capacity_ = std::max(capacity_, bytes); }

  /// Gives back all that was taken.
  void clear() {
    if (!memory_) {
      auto const n = static_cast<std::size_t>(capacity_);
      memory_.reset(static_cast<std::byte*>(::operator new (n, std::align_val_t{line})));
      std::fill_n(memory_.get(), n, std::byte{0});
    }
    taken_ = 0;
  }

  template <class T>
  [[nodiscard]] std::span<T> take(i64 n) {
    i64 const bytes = round_up(n * static_cast<i64>(sizeof(T)), line);
    expects(bytes <= capacity_ - taken_, "bench: a case took ", taken_ + bytes, " bytes of ", capacity_);
    auto* const at = reinterpret_cast<T*>(memory_.get() + taken_);
    taken_ += bytes;
    return {at, static_cast<std::size_t>(n)};
  }

 private:
  struct release {
    void operator()(std::byte* p) const noexcept { ::operator delete (p, std::align_val_t{line}); }
  };
  std::unique_ptr<std::byte, release> memory_;
  i64 capacity_ = line, taken_ = 0;
};

/// Values around 0 of two decades, neither zero nor denormal, the same for every call.
template <class T>
void fill(std::span<T> memory) {
  std::uint32_t state = 1;
  for (auto& x : memory) {
    state = state * 1'664'525u + 1'013'904'223u;
    float const unit = (static_cast<float>(state >> 16 & 0xffu) - 127.5f) / 128;
    x = T(unit / 100);
  }
}

/// The host executor with slots in the arena.
struct arena_host : host {
  using host::host;
  [[nodiscard]] slab make(layout const& where) const {
    auto const memory = arena::shared().take<std::byte>(where.bytes);
    std::ranges::fill(memory, std::byte{0});
    return slab_over({memory.data(), [](std::byte*) {}}, where);
  }
};

}  // namespace limber::bench

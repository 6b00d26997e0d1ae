// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A device in the host's memory: runs the kernel bodies where there is no GPU.

#include <limber/core/random.hpp>
#include <limber/core/tensor.hpp>
#include <limber/cuda/warp.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <new>
#include <numeric>
#include <utility>

namespace limber::gpu {

/// Runs bodies one warp after the other, in an order that `seed` shuffles, and counts what it is asked.
///
/// Its memory is apart from the host side of shared arrays, as on a device, and filled with noise when
/// it is allocated: who reads what was never sent or cleared gets nonsense.
class emulator {
 public:
  struct options {
    std::uint64_t seed = 1;                           ///< of the order of items
    i64 warps = 64;                                   ///< so many fill the chip
    std::function<void(tensor_view const&)> check{};  ///< what `check_memory` does besides
  };
  struct counts {
    i64 allocations = 0, live = 0, launches = 0, items = 0, uploads = 0, downloads = 0, clears = 0,
        synchronizations = 0;
  };
  struct marker {};

  emulator() = default;
  explicit emulator(options o) : options_(std::move(o)) {}

  /// Pretends that a graph is being captured, or not.
  void capture(bool on) noexcept { capturing_ = on; }
  [[nodiscard]] bool capturing() const noexcept { return capturing_; }

  [[nodiscard]] std::byte* allocate(i64 bytes) {
    expects(!capturing_,
            "gpu: memory cannot be allocated while a graph is captured: run the same step once before");
    auto* const p = allocate_host(bytes);
    std::memset(p, 0xa5, static_cast<std::size_t>(bytes));
    return p;
  }
  void release(std::byte* p) noexcept {
    --counts_.live;
    ::operator delete(p, line);
  }
  [[nodiscard]] std::byte* allocate_host(i64 bytes) {
    auto* const p = static_cast<std::byte*>(::operator new(static_cast<std::size_t>(bytes), line));
    ++counts_.allocations;
    ++counts_.live;
    return p;
  }
  void release_host(std::byte* p) noexcept { release(p); }

  void upload(void* to, void const* from, i64 bytes) {
    ++counts_.uploads;
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
  void download(void* to, void const* from, i64 bytes) {
    ++counts_.downloads;
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
  void clear(void* p, i64 bytes) {
    ++counts_.clears;
    std::memset(p, 0, static_cast<std::size_t>(bytes));
  }

  void synchronize() noexcept { ++counts_.synchronizations; }
  void mark(marker&) noexcept {}
  void await(marker const&) noexcept {}
  [[nodiscard]] bool reached(marker const&) const noexcept { return true; }

  /// body(warp, i) for all i in [0, items): every item once, at places a · k + b modulo their number.
  template <class Body>
  void launch(Body const& body, i64 items) {
    ++counts_.launches;
    counts_.items += items;
    if (items <= 0) return;
    auto const n = static_cast<std::uint64_t>(items);
    std::uint64_t const bits = random_bits(options_.seed, static_cast<std::uint64_t>(counts_.launches), 0);
    std::uint64_t step = 1 + bits % n;
    while (std::gcd(step, n) != 1) step = step % n + 1;
    std::uint64_t at = (bits >> 32) % n;
    for (std::uint64_t k = 0; k < n; ++k) {
      body(emulated_warp{}, static_cast<i64>(at));
      at = (at + step) % n;
    }
  }

  void check_memory(tensor_view const& t) const {
    if (options_.check) options_.check(t);
  }
  [[nodiscard]] i64 warps() const noexcept { return options_.warps; }
  [[nodiscard]] counts const& seen() const noexcept { return counts_; }

 private:
  static constexpr std::align_val_t line{256};
  options options_{};
  bool capturing_ = false;
  counts counts_{};
};

}  // namespace limber::gpu

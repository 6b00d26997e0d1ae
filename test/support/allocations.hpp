// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Counts every allocation of an executable, for promises that a step makes none. Included once, before
/// any namespace is opened. Under a sanitizer, which has allocation to itself, nothing is counted.

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace limber::testing {
inline std::atomic<long> allocations{0};
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define LIMBER_TEST_IS_SANITIZED 1
#endif
#endif
#if !defined(LIMBER_TEST_IS_SANITIZED) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)

[[gnu::noinline]] void* operator new(std::size_t n) {
  ++limber::testing::allocations;
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t n, std::align_val_t a) {
  ++limber::testing::allocations;
  auto const line = static_cast<std::size_t>(a);
  if (void* p = std::aligned_alloc(line, (n + line - 1) / line * line)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

#endif

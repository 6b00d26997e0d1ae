// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Annotations of stack switches for sanitizers, and which sanitizers this build uses.

#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LIMBER_SIM_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define LIMBER_SIM_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define LIMBER_SIM_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define LIMBER_SIM_TSAN 1
#endif

#if defined(LIMBER_SIM_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace limber::sim::detail {

#if defined(LIMBER_SIM_ASAN)
inline constexpr bool address_sanitizer = true;
#else
inline constexpr bool address_sanitizer = false;
#endif
#if defined(LIMBER_SIM_TSAN)
inline constexpr bool thread_sanitizer = true;
#else
inline constexpr bool thread_sanitizer = false;
#endif

/// The bounds of a stack, for AddressSanitizer; unused in other builds.
struct stack_bounds {
  void const* bottom = nullptr;
  std::size_t size = 0;
};

/// Call before a switch to `next`; `kept` stores the state of this stack, nullptr if it is not resumed.
inline void leave_stack([[maybe_unused]] void** kept, [[maybe_unused]] stack_bounds next) noexcept {
#if defined(LIMBER_SIM_ASAN)
  __sanitizer_start_switch_fiber(kept, next.bottom, next.size);
#endif
}
/// Call after a switch; `from` receives the bounds of the previous stack.
inline void enter_stack([[maybe_unused]] void* kept, [[maybe_unused]] stack_bounds* from) noexcept {
#if defined(LIMBER_SIM_ASAN)
  __sanitizer_finish_switch_fiber(kept, from ? &from->bottom : nullptr, from ? &from->size : nullptr);
#endif
}

}  // namespace limber::sim::detail

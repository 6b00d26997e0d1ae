// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the language cannot say by itself: which functions also run on a GPU, which builds are refused.

#include <limber/core/version.hpp>

#include <cstdint>

/// Marks a function that runs on the host and, in a CUDA compilation, on the device too.
#if defined(__CUDACC__)
#define LIMBER_HD __host__ __device__
#else
#define LIMBER_HD
#endif

/// Stands in front of a LIMBER_HD function that calls a user's part which may be host-only (a schedule, a
/// rule's `at`) as long as only the host calls it; nvcc would warn of every instance (20011 to 20014).
///
/// nvcc is silent then where the device does call it, too, and makes a kernel without a body: kernels
/// call such functions through `on_device`, which refuses host-only parts at compile time.
#if defined(__NVCC__)
#define LIMBER_NO_EXEC_CHECK _Pragma("nv_exec_check_disable")
#else
#define LIMBER_NO_EXEC_CHECK
#endif

// Limber promises the same bits from every compiler and on every device, and finds non-finite
// gradients by their exponents. -ffast-math breaks the first and may remove the second.
#if defined(__FAST_MATH__) && !defined(LIMBER_ALLOW_FAST_MATH)
#error "limber: compile without -ffast-math, or define LIMBER_ALLOW_FAST_MATH to give up bit-stable results"
#endif

namespace limber {

/// Counts (steps, samples, elements, bytes) are 64-bit and signed everywhere.
using i64 = std::int64_t;

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the language cannot say by itself: which functions also run on a GPU, which builds are refused.

#include <limber/core/version.hpp>

// Every header includes this one ahead of its own text, so that these lines are the first that a compiler
// reports. A header that does not exist ends the compilation: no other error follows.
#if defined(__cplusplus) && __cplusplus < 202002L
#error "limber: needs C++20: compile with -std=c++20 (CMake: target_compile_features(... cxx_std_20))"
#include <compilation_ends_here>
#endif
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__cpp_exceptions) && !defined(__CUDA_ARCH__)
#error "limber: needs exceptions: compile without -fno-exceptions"
#include <compilation_ends_here>
#endif

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

// The two forms of these headers. By default everything is defined in them and nothing needs to be linked.
// With LIMBER_COMPILED they only declare what is not a template: one unit, that of the library, defines it
// by including <limber/impl/src.hpp>. A virtual function is LIMBER_FN where its class declares it, too: else
// each header-only unit that sees the class compiles all of them, used or not.
#if defined(LIMBER_COMPILED)
#define LIMBER_FN
#else
#define LIMBER_FN inline
#endif

// One symbol of two kinds, thread-local in header-only units and plain in compiled ones: linkers that compare
// kinds (GNU ld, gold, lld) do not bind one to the other, so that a program cannot mix the forms.
#if defined(__ELF__) && !defined(__CUDACC__)
#if defined(LIMBER_COMPILED)
extern "C" char const limber_is_header_only_in_one_unit_and_compiled_in_another;
namespace {
[[gnu::used]] char const* const limber_form = &limber_is_header_only_in_one_unit_and_compiled_in_another;
}
#else
extern "C" {
[[gnu::used, gnu::weak]] thread_local char limber_is_header_only_in_one_unit_and_compiled_in_another = 0;
}
#endif
#endif

/// Stands before functions that run on errors, or once: they are compiled for size.
#if defined(__GNUC__) || defined(__clang__)
#define LIMBER_COLD __attribute__((cold))
#else
#define LIMBER_COLD
#endif

namespace limber {

/// Counts (steps, samples, elements, bytes) are 64-bit and signed everywhere.
using i64 = std::int64_t;

}  // namespace limber

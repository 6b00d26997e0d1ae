// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Loops over registers have to be unrolled on a device, and functions that share them inlined, or the
/// registers become memory.

#include <limber/core/config.hpp>

#if defined(__CUDA_ARCH__)
#define LIMBER_DETAIL_UNROLL _Pragma("unroll")
#else
#define LIMBER_DETAIL_UNROLL
#endif

#if defined(__CUDACC__)
#define LIMBER_DETAIL_INLINE LIMBER_HD __forceinline__
#else
#define LIMBER_DETAIL_INLINE inline
#endif

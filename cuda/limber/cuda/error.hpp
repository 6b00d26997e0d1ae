// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Status codes of the CUDA runtime as exceptions.

#include <limber/core/error.hpp>

#include <cuda_runtime_api.h>

#include <string_view>

namespace limber::gpu {

/// @throws limber::error {engine "cuda", call, code} unless `status` is cudaSuccess
inline void check(cudaError_t status, std::string_view call) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // an error that is told is not told again by the next launch
  throw error({.engine = "cuda",
               .call = std::string(call),
               .code = static_cast<int>(status),
               .reason = text(cudaGetErrorName(status), ": ", cudaGetErrorString(status))});
}

}  // namespace limber::gpu

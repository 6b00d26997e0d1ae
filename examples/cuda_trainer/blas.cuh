// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// cuBLAS on one stream.

#include "network.hpp"

#include <limber/core/error.hpp>
#include <limber/cuda/cuda_device.cuh>

#include <cublas_v2.h>

namespace example {

/// Products of matrices that lie column by column, in fp32.
class cublas {
 public:
  /// Has a workspace of its own: graphs then need no memory, and every run gives the same bits.
  explicit cublas(limber::gpu::executor& e) : workspace_(e.make({{}, workspace_bytes})) {
    check(cublasCreate(&handle_), "cublasCreate");
    check(cublasSetStream(handle_, e.device().stream().get()), "cublasSetStream");
    check(cublasSetWorkspace(handle_, workspace_.data(), workspace_bytes), "cublasSetWorkspace");
  }
  cublas(cublas const&) = delete;
  cublas& operator=(cublas const&) = delete;
  ~cublas() { (void)cublasDestroy(handle_); }

  /// c ← A B + keep · c, where A is m × k and B is k × n once they are turned as said.
  /// Does not synchronize.
  void multiply(float const* a, side of_a, float const* b, side of_b, float* c, int m, int n, int k,
                float keep) const {
    float const one = 1;
    bool const turn_a = of_a == side::transposed, turn_b = of_b == side::transposed;
    check(cublasSgemm(handle_, turn_a ? CUBLAS_OP_T : CUBLAS_OP_N, turn_b ? CUBLAS_OP_T : CUBLAS_OP_N, m, n,
                      k, &one, a, turn_a ? k : m, b, turn_b ? n : k, &keep, c, m),
          "cublasSgemm");
  }

 private:
  static constexpr i64 workspace_bytes = i64{32} << 20;

  static void check(cublasStatus_t status, char const* call) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw limber::error({.engine = "cublas",
                         .call = call,
                         .code = static_cast<int>(status),
                         .reason = cublasGetStatusString(status)});
  }

  limber::slab workspace_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace example

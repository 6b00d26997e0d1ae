// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// For tests that need a GPU: included once, beside Boost.Test. Without a device the program says so in
/// one line and exits with status 77, which ctest reports as skipped. (When all cases of a Boost module
/// are disabled, the module passes instead.)

#include <cuda_runtime_api.h>

#include <boost/test/unit_test.hpp>

#include <cstdio>
#include <cstdlib>

namespace limber_test {

/// Exits before the first case unless there is a device.
struct needs_a_device {
  needs_a_device() {
    int count = 0;
    cudaError_t const status = cudaGetDeviceCount(&count);
    if (status == cudaSuccess && count > 0) return;
    std::printf("skipped: no CUDA device: %s\n", status == cudaSuccess ? "none" : cudaGetErrorString(status));
    std::fflush(nullptr);
    std::_Exit(77);
  }
};
BOOST_TEST_GLOBAL_FIXTURE(needs_a_device);

}  // namespace limber_test

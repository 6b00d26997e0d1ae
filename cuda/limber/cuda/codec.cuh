// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// `reproducible` on a CUDA device.

#include <limber/cuda/codec.hpp>
#include <limber/cuda/cuda_device.cuh>

namespace limber::gpu {

/// reproducible(nccl_communicator, {}, gpu::codec{exec}): sums with the same bits whatever the order of
/// ranks, the cut of buckets and the number of workers.
using codec = basic_codec<cuda_device>;

}  // namespace limber::gpu

// SPDX-License-Identifier: Apache-2.0
// labels: kernel
// optimize: 1
// timeout: 300
// needs: late_cuda
// sanitizers: address
// The cases for a GPU, on the stand-in for the CUDA runtime: the order of things is tried, the chip is not.
#include <cuda/gpu_graph_test.cu>

// SPDX-License-Identifier: Apache-2.0

/// @file
/// A training loop in CUDA: a small network learns a function of 8 numbers by SGD with momentum.
/// `diff before.cu after.cu` shows what it takes to adopt Limber's fused step.

#include <limber/cuda/cuda_device.cuh>
#include <limber/cuda/fused_step.hpp>
#include <limber/limber.hpp>

#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace {

constexpr int samples = 8192, batch = 256, inputs = 8, hidden = 64, updates = 4000;
constexpr double base_rate = 0.05;

struct parameter {
  char const* name;
  int n;
  float *value, *gradient;
};
struct model {
  parameter w1, b1, w2, b2;
  float *h, *error, *loss;
};

void check(cudaError_t status, char const* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "drop_in: %s: %s\n", what, cudaGetErrorString(status));
  std::exit(status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver ? 77 : 1);
}

float* device(std::vector<float> const& host) {
  float* p = nullptr;
  check(cudaMalloc(&p, host.size() * sizeof(float)), "cudaMalloc");
  check(cudaMemcpy(p, host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice), "cudaMemcpy");
  return p;
}

std::vector<float> uniform(int n, float bound) {
  static std::mt19937 random(1);
  std::vector<float> out;
  for (int i = 0; i < n; ++i) out.push_back(std::uniform_real_distribution<float>(-bound, bound)(random));
  return out;
}

float* zeros(int n) { return device(std::vector<float>(static_cast<std::size_t>(n))); }

parameter make(char const* name, int n, float bound) {
  return {name, n, device(uniform(n, bound)), zeros(n)};
}

// One thread a sample.
__global__ void forward(model m, float const* all) {
  int const j = static_cast<int>(threadIdx.x);
  float const* const x = all + j * inputs;
  float out = m.b2.value[0];
  for (int u = 0; u < hidden; ++u) {
    float sum = m.b1.value[u];
    for (int i = 0; i < inputs; ++i) sum += m.w1.value[u * inputs + i] * x[i];
    m.h[j * hidden + u] = tanhf(sum);
    out += m.w2.value[u] * m.h[j * hidden + u];
  }
  m.error[j] = out - (sinf(2 * (x[0] + x[1])) - x[2] * x[3]);
}

// One thread a hidden unit; adds the gradient of the mean of error² / 2.
__global__ void backward(model m, float const* x) {
  int const u = static_cast<int>(threadIdx.x);
  float loss = 0;
  for (int j = 0; j < batch; ++j) {
    float const e = m.error[j] / batch, h = m.h[j * hidden + u], back = e * m.w2.value[u] * (1 - h * h);
    for (int i = 0; i < inputs; ++i) m.w1.gradient[u * inputs + i] += back * x[j * inputs + i];
    m.b1.gradient[u] += back;
    m.w2.gradient[u] += e * h;
    if (u == 0) m.b2.gradient[0] += e;
    loss += e * m.error[j] / 2;
  }
  if (u == 0) m.loss[0] = loss;
}

}  // namespace

int main() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream), "cudaStreamCreate");
  float const* const x = device(uniform(samples * inputs, 1));
  auto const w1 = make("w1", hidden * inputs, 0.6f), b1 = make("b1", hidden, 0.1f),
             w2 = make("w2", hidden, 0.2f), b2 = make("b2", 1, 0);
  model const m{w1, b1, w2, b2, zeros(batch * hidden), zeros(batch), zeros(1)};

  limber::gpu::executor exec{limber::gpu::stream_view(stream)};
  std::vector<limber::tensor> tensors;
  for (parameter const& p : {w1, b1, w2, b2})
    tensors.emplace_back(p.name, std::span(p.value, p.n), std::span(p.gradient, p.n));
  auto const rate = base_rate * limber::cosine(limber::steps(updates));
  limber::gpu::fused_step step{exec, tensors, limber::sgd{.momentum = 0.9}, rate};
  float first = 0, loss = 0;
  for (int k = 0; k < updates; ++k) {
    step.advance(batch, batch);
    int const from = k % (samples / batch) * batch;
    forward<<<1, batch, 0, stream>>>(m, x + from * inputs);
    backward<<<1, hidden, 0, stream>>>(m, x + from * inputs);
    step.update();
    if (k % 500 != 0 && k + 1 != updates) continue;
    check(cudaMemcpy(&loss, m.loss, sizeof loss, cudaMemcpyDeviceToHost), "training");
    std::printf("update %4d  rate %.5f  loss %.6f\n", k, step.settle().hyper.rate, static_cast<double>(loss));
    if (k == 0) first = loss;
  }
  return loss < first / 10 ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0

/// @file
/// What training.hpp runs on: a GPU with its stream, graphs, cuBLAS, and NCCL to the other processes.

#include "blas.cuh"
#include "trainer.hpp"
#include "training.hpp"

#include <limber/comm/nccl.hpp>
#include <limber/cuda/cuda_device.cuh>
#include <limber/cuda/graph.cuh>

#include <optional>
#include <utility>
#include <vector>

namespace example {

namespace gpu = limber::gpu;
namespace nccl = limber::nccl;

int visible_gpus(std::string& why) {
  int n = 0;
  cudaError_t const status = cudaGetDeviceCount(&n);
  why = status == cudaSuccess ? "no device is visible" : cudaGetErrorString(status);
  return status == cudaSuccess ? n : 0;
}

namespace {

// Alone, a process needs nobody. With others, NCCL takes the GPU of the local rank.
std::optional<nccl::communicator> join_others(limber::launch_facts const& facts,
                                              std::filesystem::path const& meet) {
  if (facts.size == 1) return std::nullopt;
  auto const job = facts.job.empty() ? "cuda_trainer" : facts.job;
  return std::optional<nccl::communicator>(std::in_place, facts, nccl::bootstrap_file(meet, job));
}

int make_current(int device) {
  gpu::check(cudaSetDevice(device), "cudaSetDevice");
  return device;
}

}  // namespace

struct gpu_machine::parts {
  std::optional<nccl::communicator> comm;
  int device;
  gpu::stream stream{};
  gpu::executor exec{gpu::stream_view(stream)};
  cublas products{exec};

  parts(limber::launch_facts const& facts, std::filesystem::path const& meet, int devices)
      : comm(join_others(facts, meet)),
        device(make_current(comm ? comm->device() : limber::device_for(facts, devices))) {}

  [[nodiscard]] int rank() const { return comm ? comm->rank() : 0; }
  [[nodiscard]] int ranks() const { return comm ? comm->size() : 1; }

  struct place {
    bool warm = false;
    std::optional<gpu::graph> graph{};
  };
  // Captured the second time. The first time it runs as it is: libraries make what they make when they
  // are first used, and NCCL connects.
  template <class F>
  void replay(place& p, F&& f) {
    if (!std::exchange(p.warm, true)) return f();
    if (!p.graph) p.graph = gpu::graph::capture(stream.get(), f);
    p.graph->launch(stream.get());
  }

  template <class Step>
  void add(Step& step) {
    std::vector<nccl::reduced> sums;
    auto const part = [](limber::bucket const& b, limber::slab const& s) {
      return limber::tensor_view{s.data() + b.offset, b.length, b.type, b.name};
    };
    for (auto const& b : step.buckets().buckets)
      sums.push_back({part(b, step.packed()), part(b, step.reduced())});
    sums.push_back({step.control(), step.total()});
    comm->enqueue_all_reduce(stream.get(), sums);
  }

  // With others, no longer than NCCL's deadline allows.
  void wait() {
    if (comm) {
      gpu::stream_event reached;
      reached.mark(stream);
      comm->await(reached.get(), "updates");
    }
    exec.device().synchronize();
  }
};

gpu_machine::gpu_machine(limber::launch_facts const& facts, std::filesystem::path const& meet) {
  std::string why;
  int const devices = visible_gpus(why);
  parts_ = std::make_unique<parts>(facts, meet, devices);
}
gpu_machine::~gpu_machine() = default;
int gpu_machine::rank() const { return parts_->rank(); }
int gpu_machine::ranks() const { return parts_->ranks(); }
std::string gpu_machine::describe() const {
  cudaDeviceProp facts{};
  gpu::check(cudaGetDeviceProperties(&facts, parts_->device), "cudaGetDeviceProperties");
  return limber::text(facts.name, ", ", ranks(), ranks() == 1 ? " process" : " processes");
}

struct gpu_trainer::parts : training_on<gpu_machine::parts> {
  using training_on::training_on;
};

gpu_trainer::gpu_trainer(gpu_machine& on, network_shape const& shape, network_input const& input,
                         std::vector<limber::tensor> const& start, gpu_plan const& plan,
                         std::span<i64 const> probe)
    : parts_(std::make_unique<parts>(on.all(), shape, input, start, plan, probe)) {}
gpu_trainer::~gpu_trainer() = default;
void gpu_trainer::gradient(std::span<i64 const> samples, std::vector<limber::tensor> const& out) {
  parts_->gradient(samples, out);
}
void gpu_trainer::update(std::span<i64 const> samples, i64 planned) { parts_->update(samples, planned); }
standing gpu_trainer::now() { return parts_->now(); }
double gpu_trainer::probe() { return parts_->probe(); }
void gpu_trainer::check() { parts_->check(); }
void gpu_trainer::read(std::vector<limber::tensor> const& to) { parts_->read(to); }

}  // namespace example

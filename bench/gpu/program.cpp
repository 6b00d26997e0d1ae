// SPDX-License-Identifier: Apache-2.0

/// @file
/// Each fused kernel beside its ceiling and its peers, on lists of tensors of real models.
///
///     gpu/adamw/resnet50/f32          kernel, list, storage of parameters and gradients (or of the wire)
///
/// Rows     (none)    Limber: one launch for the list, or a whole `-step`
///          graph     Limber's step with its update captured once and launched as a CUDA graph
///          thrust    the same functors, one thrust::transform per tensor
///          torch-…   PyTorch, from the file that --torch names (bench/peers/torch_peers.py)
///          gpu/copy  device to device, as many bytes as the task moves
///
/// Bytes    gpu/traffic.hpp. Time is between two events on the stream, over batches of passes, with as many
///          copies of the list as it takes to leave the cache.
///
///     bench_gpu --lists                       the lists as JSON, for other programs
///     bench_gpu --torch=FILE --out=STEM …     merges PyTorch's rows; writes STEM.md and STEM.json

#include <gpu/cases.hpp>
#include <gpu/device.hpp>
#include <gpu/goals.hpp>
#include <gpu/torch.hpp>

#include <cstddef>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

namespace limber::bench {
namespace {

void print_lists(bool quick) {
  std::cout << '{';
  char const* separator = "";
  for (auto const& s : gpu_lists(quick)) {
    std::cout << separator << "\n  " << quoted(s.name) << ": [";
    for (std::size_t t = 0; t < s.lengths.size(); ++t) std::cout << (t > 0 ? ", " : "") << s.lengths[t];
    std::cout << ']';
    separator = ",";
  }
  std::cout << "\n}\n";
}

int run(int argc, char** argv) {
  std::string torch_file;
  bool lists = false;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    std::string_view const a = argv[i];
    constexpr std::string_view torch = "--torch=";
    if (a == "--lists")
      lists = true;
    else if (a.starts_with(torch))
      torch_file = a.substr(torch.size());
    else
      rest.push_back(argv[i]);
  }
  program all(static_cast<int>(rest.size()), rest.data());
  if (lists) {
    print_lists(all.quick());
    return 0;
  }
  int devices = 0;
  cudaError_t const found = cudaGetDeviceCount(&devices);
  if (found != cudaSuccess || devices == 0) {
    std::cout << "skipped: bench gpu: no CUDA device ("
              << (found == cudaSuccess ? "none is there" : cudaGetErrorString(found)) << ")\n";
    return 0;
  }
  torch_rows const torch = torch_file.empty() ? torch_rows{} : torch_rows(torch_file);
  all.device = describe_device() + (torch.describe().empty() ? "" : torch.describe() + "\n");
  all.heading = "GPU kernels, measured with `bench/run gpu`";
  all.afterwards = write_goals;
  all.repetitions = 5;
  for (auto& s : gpu_lists(all.quick())) {
    auto const shared = std::make_shared<shapes const>(std::move(s));
    add_updates(all, shared);
    add_steps(all, shared);
    add_lamb_steps(all, shared);
    add_fusion(all, shared);
  }
  torch.add_to(all);
  return all.run();
}

}  // namespace
}  // namespace limber::bench

int main(int argc, char** argv) try {
  return limber::bench::run(argc, argv);
} catch (std::exception const& e) {
  std::cerr << "limber: " << e.what() << '\n';
  return 1;
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A network that trains on a GPU, as the rest of the program sees it: nothing of CUDA, so that a host
/// compiler does for everything but trainer.cu.

#include <limber/comm/launch.hpp>
#include <limber/core/progress.hpp>
#include <limber/core/tensor.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace example {

/// One hidden layer and a softmax (mlp.hpp); in front of it an embedding of each byte where the input is
/// text.
struct network_shape {
  int inputs = 0;  ///< numbers the hidden layer sees
  int hidden = 0;
  int classes = 0;
  int context =
      0;  ///< bytes a sample sees, each embedded in inputs / context numbers; 0: the input is numbers
};

/// All that is trained on and judged by, in host memory. Sample i of a text is the prediction of byte
/// i + context; of numbers, row i of `pixels` and its label.
struct network_input {
  std::span<std::uint8_t const> text{};
  std::span<float const> pixels{};
  std::span<std::uint8_t const> labels{};
};

/// What training depends on, besides network and input.
struct gpu_plan {
  limber::i64 epoch_size = 1;
  limber::i64 micro_batch = 16;  ///< samples of a micro-batch: a shape that never changes
  limber::i64 most_samples = 0;  ///< the most that `update` will get
  limber::i64 base_batch = 64;   ///< the batch that base_lr is for
  limber::i64 samples = 1;       ///< of the whole run, over which a cosine falls to `last`
  double base_lr = 0.1, last = 0, momentum = 0.9;
  limber::ramp_rule ramp{};
};

/// GPUs that this process sees, and in `why` the reason if there are none.
[[nodiscard]] int visible_gpus(std::string& why);

/// This process's GPU, and its way to those of the other processes.
class gpu_machine {
 public:
  /// Synchronizes with the other processes, if there are any.
  /// @param meet  a folder that all processes share, where they find each other
  explicit gpu_machine(limber::launch_facts const& facts, std::filesystem::path const& meet);
  ~gpu_machine();
  gpu_machine(gpu_machine const&) = delete;
  gpu_machine& operator=(gpu_machine const&) = delete;

  [[nodiscard]] int rank() const;
  [[nodiscard]] int ranks() const;
  /// "NVIDIA H100, 1 process"
  [[nodiscard]] std::string describe() const;

  struct parts;
  [[nodiscard]] parts& all() const { return *parts_; }

 private:
  std::unique_ptr<parts> parts_;
};

/// Where training stands.
struct standing {
  limber::progress now{};
  double rate = 0;  ///< of the last update
  double bits = 0;  ///< loss on this process's samples, smoothed over some 20 updates
};

/// Trains on one GPU, together with the trainers of the other processes.
class gpu_trainer {
 public:
  /// @param start  first values, the same on all processes; copied. Names and order as model.hpp has them
  /// @param probe  held-out samples for `probe()`
  gpu_trainer(gpu_machine& on, network_shape const& shape, network_input const& input,
              std::vector<limber::tensor> const& start, gpu_plan const& plan,
              std::span<limber::i64 const> probe);
  ~gpu_trainer();
  gpu_trainer(gpu_trainer const&) = delete;
  gpu_trainer& operator=(gpu_trainer const&) = delete;

  /// The gradient's sum over `samples`, at most a micro-batch of them, into the gradients of `out`.
  /// Before the first update. Synchronizes.
  void gradient(std::span<limber::i64 const> samples, std::vector<limber::tensor> const& out);

  /// One update from this process's `samples`, which may be none; all processes together have `planned`
  /// of them by plan. Does not synchronize.
  void update(std::span<limber::i64 const> samples, limber::i64 planned);

  /// Synchronizes.
  [[nodiscard]] standing now();
  /// Mean loss of the probe in bits. Synchronizes.
  [[nodiscard]] double probe();
  /// All processes call it after the same update, so that all throw alike. Synchronizes.
  /// @throws limber::error if gradients were not finite many times in a row
  void check();
  /// Copies the parameters to the values of `to`. Synchronizes.
  void read(std::vector<limber::tensor> const& to);

 private:
  struct parts;
  std::unique_ptr<parts> parts_;
};

}  // namespace example

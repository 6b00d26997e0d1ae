// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a trainer on GPUs adds to its own code to use Limber: a fused step, `advance` before each update,
/// and two pieces of work that never change.

#include "network.hpp"
#include "trainer.hpp"

#include <limber/cuda/fused_step.hpp>
#include <limber/fuse/layout.hpp>
#include <limber/rule/sgd.hpp>
#include <limber/schedule/cosine.hpp>
#include <limber/schedule/product.hpp>
#include <limber/schedule/scaling.hpp>

#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace example {

/// Dynamic SGD over all processes.
template <class E>
[[nodiscard]] auto make_step(E& e, std::vector<limber::tensor> const& tensors, gpu_plan const& p, int ranks) {
  auto const rate = limber::dynamic_sgd(p.base_lr, static_cast<double>(p.base_batch)) *
                    limber::cosine(limber::samples(static_cast<double>(p.samples)), p.last);
  // training_on::check looks at skipped updates where all processes do; here one might leave before the
  // others.
  return limber::gpu::fused_step{e, tensors, limber::sgd{.momentum = p.momentum}, rate,
                                 limber::gpu::fused_options{.epoch_size = p.epoch_size,
                                                            .ramp = p.ramp,
                                                            .gradient = limber::gradient_is::sum,
                                                            .max_skipped = std::numeric_limits<i64>::max(),
                                                            .ranks = ranks}};
}

/// The work of a gpu_trainer, on whatever has
///
///     exec, products          an executor and a Blas
///     ranks()                 processes
///     replay(place, f)        f(), or a graph captured from it and kept in `place`
///     add(step)               sums packed() and control() over the processes; within replay
///     wait()                  for all that was started
template <class Machine>
class training_on {
  using exec = std::remove_cvref_t<decltype(std::declval<Machine&>().exec)>;
  using blas = std::remove_cvref_t<decltype(std::declval<Machine&>().products)>;

 public:
  training_on(Machine& m, network_shape const& shape, network_input const& input,
              std::vector<limber::tensor> const& start, gpu_plan const& plan, std::span<i64 const> probe)
      : on_(m),
        values_(m.exec.make(limber::layout_of(values_of(start)))),
        gradients_(m.exec.make(limber::layout_of(values_of(start)))),
        tensors_(uploaded(start)),
        net_(m.exec, m.products, shape, input, tensors_),
        micro_(m.exec, shape, plan.micro_batch, plan.most_samples),
        probe_(m.exec, shape, static_cast<i64>(probe.size()), static_cast<i64>(probe.size())),
        step_(make_step(m.exec, tensors_, plan, m.ranks())) {
    probe_.deal(probe);
  }

  void gradient(std::span<i64 const> samples, std::vector<limber::tensor> const& out) {
    micro_.deal(samples);
    accumulate();
    for (std::size_t k = 0; k < out.size(); ++k) download(out[k].gradient, gradients_.parts[k]);
    on_.wait();
    on_.exec.device().clear(gradients_.data(), gradients_.bytes);
    on_.exec.device().clear(micro_.sums().device, micro_.sums().bytes());
  }

  void update(std::span<i64 const> samples, i64 planned) {
    // All that changes from update to update goes in here, by value or by copy: no graph ever does.
    step_.advance(static_cast<i64>(samples.size()), static_cast<double>(planned));
    micro_.deal(samples);
    for (i64 first = 0; first < static_cast<i64>(samples.size()); first += micro_.n()) accumulate();
    on_.replay(whole_update_, [&] {
      step_.update([&](auto& step) { on_.add(step); });
      on_.exec.run(1, kernel::close_losses{micro_.sums().device});
    });
  }

  [[nodiscard]] standing now() {
    on_.wait();
    auto const& state = step_.settle();
    on_.exec.collect(micro_.sums());
    auto const& loss = micro_.sums()[0];
    return {state.now, state.hyper.rate, static_cast<double>(loss.smooth / loss.weight)};
  }

  [[nodiscard]] double probe() {
    on_.replay(evaluation_, [&] {
      on_.exec.device().clear(probe_.sums().device, probe_.sums().bytes());
      on_.exec.device().clear(probe_.dealt().feed, sizeof(i64));
      net_.forward(probe_);
      net_.finish(probe_);
    });
    on_.wait();
    on_.exec.collect(probe_.sums());
    return static_cast<double>(probe_.sums()[0].sum / probe_.sums()[0].count);
  }

  void check() {
    constexpr i64 most = 100;
    on_.wait();
    auto const& state = step_.settle();
    if (state.skipped_in_a_row <= most) return;
    throw limber::error({.engine = "cuda_trainer",
                         .call = "check",
                         .bucket = std::string(step_.name_of_tensor(state.culprit)),
                         .reason = limber::text("gradients were not finite in the last ",
                                                state.skipped_in_a_row, " updates")});
  }

  void read(std::vector<limber::tensor> const& to) {
    for (std::size_t k = 0; k < to.size(); ++k) download(to[k].value, values_.parts[k]);
    on_.wait();
  }

 private:
  // Forward and backward of the next micro-batch.
  void accumulate() {
    on_.replay(micro_batch_, [&] {
      net_.forward(micro_);
      net_.backward(micro_);
      net_.finish(micro_);
    });
  }

  void download(limber::tensor_view const& to, limber::tensor_view const& from) {
    on_.exec.device().download(to.data, from.data, from.bytes());
  }
  [[nodiscard]] static limber::tensor_list values_of(std::vector<limber::tensor> const& all) {
    limber::tensor_list out;
    for (auto const& t : all) out.push_back(t.value);
    return out;
  }
  [[nodiscard]] std::vector<limber::tensor> uploaded(std::vector<limber::tensor> const& start) {
    std::vector<limber::tensor> out;
    for (std::size_t k = 0; k < start.size(); ++k) {
      auto const& value = start[k].value;
      on_.exec.device().upload(values_.parts[k].data, value.data, value.bytes());
      out.emplace_back(start[k].name, values_.parts[k], gradients_.parts[k]);
    }
    return out;
  }

  Machine& on_;
  limber::slab values_, gradients_;
  std::vector<limber::tensor> tensors_;
  network<exec, blas> net_;
  batches<exec> micro_, probe_;
  decltype(make_step(std::declval<exec&>(), {}, {}, 1)) step_;
  typename Machine::place micro_batch_{}, whole_update_{}, evaluation_{};
};

}  // namespace example

// SPDX-License-Identifier: Apache-2.0
// labels: unit kernel
// sanitizers: no
// needs: Eigen3 ZLIB late_cuda
#define BOOST_TEST_MODULE limber.examples.cuda_training
#include "../../examples/cuda_trainer/run.hpp"
#include "../../examples/cuda_trainer/training.hpp"

#include <limber/comm/threads.hpp>
#include <limber/cuda/cuda_device.cuh>
#include <limber/cuda/graph.cuh>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using limber::i64;
namespace gpu = limber::gpu;

namespace {

// One element of what cuBLAS is asked for.
struct product {
  float const* a;
  example::side of_a;
  float const* b;
  example::side of_b;
  float* c;
  int m, n, k;
  float keep;

  void operator()(i64 at) const {
    i64 const row = at % m, col = at / m;
    double sum = 0;
    for (int i = 0; i < k; ++i)
      sum += static_cast<double>(of_a == example::side::plain ? a[i * m + row] : a[row * k + i]) *
             static_cast<double>(of_b == example::side::plain ? b[col * k + i] : b[i * n + col]);
    c[at] = static_cast<float>(sum) + (keep == 0.f ? 0.f : keep * c[at]);
  }
};
struct plain_blas {
  gpu::executor* exec;
  void multiply(float const* a, example::side of_a, float const* b, example::side of_b, float* c, int m,
                int n, int k, float keep) const {
    exec->run(i64{m} * n, product{a, of_a, b, of_b, c, m, n, k, keep});
  }
};

// A gpu_machine on a stand-in for CUDA's runtime, where everything is late; other ranks are threads.
struct late_machine {
  limber::threads::communicator* comm = nullptr;
  gpu::stream stream{};
  gpu::executor exec{stream};
  plain_blas products{&exec};
  struct place {
    bool warm = false;
    std::optional<gpu::graph> graph{};
  };

  [[nodiscard]] int rank() const { return comm ? comm->rank() : 0; }
  [[nodiscard]] int ranks() const { return comm ? comm->size() : 1; }
  template <class F>
  void replay(place& p, F&& f) {
    if (!std::exchange(p.warm, true)) return f();
    if (!p.graph) p.graph = gpu::graph::capture(stream.get(), f);
    p.graph->launch(stream.get());
  }
  // As NCCL does it: in the order of the stream, and again at each replay.
  template <class Step>
  void add(Step& step) {
    auto const in_order = [this](limber::const_tensor_view from, limber::tensor_view to) {
      late_cuda::here().enqueue(*stream.get(), [c = comm, from, to] { c->all_reduce(from, to).wait(); });
    };
    for (auto const& b : step.buckets().buckets)
      in_order(limber::tensor_view{step.packed().data() + b.offset, b.length, b.type, b.name},
               {step.reduced().data() + b.offset, b.length, b.type, b.name});
    in_order(step.control(), step.total());
  }
  void wait() { exec.device().synchronize(); }
};

// Enough letters to learn from, and a length at which epochs end with short updates.
example::corpus small_text() {
  std::string bytes;
  for (std::size_t i = 0; bytes.size() < 431; ++i)
    bytes += i % 3 == 0 ? "the cat " : i % 5 == 0 ? "sat. " : "on ";
  return {bytes, "a test"};
}

example::digits small_digits() {
  example::digits out{.features = 7, .trained = 90};
  for (int i = 0; i < 100; ++i) {
    out.labels.push_back(static_cast<std::uint8_t>(i % 10));
    for (int c = 0; c < 7; ++c) out.pixels.push_back(static_cast<float>((i * (c + 3)) % 10) / 10.f);
  }
  return out;
}

example::training plan(i64 epoch_size) {
  example::training run{.generations = {},
                        .epoch_size = epoch_size,
                        .per_worker = 5,
                        .base_batch = 10,
                        .base_lr = 0.05,
                        .momentum = 0.9,
                        .seed = 3};
  i64 samples = 0;
  for (auto const& [workers, steps] : {std::pair{2, 20}, {7, 12}, {3, 9}})
    run.generations.push_back({workers, samples += workers * steps * run.per_worker});
  return run;
}

std::vector<i64> first_samples(i64 n) {
  std::vector<i64> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), i64{0});
  return out;
}

// ‖a − b‖ / ‖b‖ over one part of all parameters.
double difference(std::vector<limber::tensor> const& a, std::vector<limber::tensor> const& b,
                  limber::tensor_view limber::tensor::*part, double scale = 1) {
  double wrong = 0, size = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    auto const x = (a[k].*part).as<float>(), y = (b[k].*part).as<float>();
    for (std::size_t i = 0; i < x.size(); ++i) {
      wrong += std::pow(static_cast<double>(x[i]) - scale * static_cast<double>(y[i]), 2);
      size += std::pow(scale * static_cast<double>(y[i]), 2);
    }
  }
  BOOST_TEST(size > 0);
  return std::sqrt(wrong / size);
}

template <class Data, class Model>
void compare_gradients(Data const& data, Model const& start, int hidden) {
  late_machine machine;
  auto const run = plan(data.train_size());
  Model a = start, b = start;
  auto const probe = first_samples(9);
  example::training_on<late_machine> trainer(machine, example::shape_of(data, hidden),
                                             example::input_of(data), a.parameters(),
                                             example::plan_of(run, 1), probe);
  // Fewer than a micro-batch: the rest is filled up, and has no gradient.
  for (i64 const n : {5, 3}) {
    auto const samples = first_samples(n);
    b = start;
    trainer.gradient(samples, a.parameters());
    (void)b.gradient(samples);
    BOOST_TEST(difference(a.parameters(), b.parameters(), &limber::tensor::gradient, static_cast<double>(n)) <
               1e-6);
  }
  BOOST_TEST(trainer.probe() == start.evaluate(probe).bits, boost::test_tools::tolerance(1e-5));
}

// Trains on `ranks` machines and, as the main job does, on the host.
template <class Data, class Model>
void compare_training(Data const& data, Model const& start, int hidden, int ranks) {
  auto const run = plan(data.train_size());
  Model const wanted = example::train(start, run, [](auto const&...) {});
  auto const probe = first_samples(40);
  limber::threads::run(ranks, [&](limber::threads::communicator& comm) {
    late_machine machine{.comm = ranks > 1 ? &comm : nullptr};
    Model trained = start;
    example::training_on<late_machine> trainer(machine, example::shape_of(data, hidden),
                                               example::input_of(data), trained.parameters(),
                                               example::plan_of(run, ranks), probe);
    double const before = trainer.probe();
    i64 steps = 0, samples = 0;
    example::train_all(trainer, run, comm.rank(), ranks, [&](auto const&, i64 k, i64 n) {
      steps = k;
      samples = n;
      if (k % 7 == 0) (void)trainer.now();
    });
    trainer.read(trained.parameters());
    Model host = wanted;
    auto const at = trainer.now();
    BOOST_TEST(difference(trained.parameters(), host.parameters(), &limber::tensor::value) < 1e-4);
    BOOST_TEST(at.now.steps == steps);
    BOOST_TEST(at.now.samples == samples);
    BOOST_TEST(at.now.planned_batch() == 15);
    BOOST_TEST(trainer.probe() < before);
    BOOST_TEST(at.bits > 0);
    BOOST_TEST(at.bits < before);
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_gradient_is_that_of_the_main_jobs_network) {
  auto const text = small_text();
  compare_gradients(text, example::language_model(text, 9, 1), 9);
  auto const images = small_digits();
  compare_gradients(images, example::digit_classifier(images, 6, 1), 6);
}

BOOST_AUTO_TEST_CASE(training_ends_where_the_main_job_ends) {
  auto const text = small_text();
  compare_training(text, example::language_model(text, 9, 1), 9, 1);
  auto const images = small_digits();
  compare_training(images, example::digit_classifier(images, 6, 1), 6, 1);
}

BOOST_AUTO_TEST_CASE(several_processes_train_what_one_trains) {
  auto const images = small_digits();
  compare_training(images, example::digit_classifier(images, 6, 1), 6, 2);
  compare_training(images, example::digit_classifier(images, 6, 1), 6, 4);
}

BOOST_AUTO_TEST_CASE(virtual_workers_are_dealt_to_processes_without_loss) {
  for (int const workers : {1, 4, 16, 64})
    for (int ranks = 1; ranks < 7; ++ranks) {
      auto const s = example::shares(workers, 16, ranks);
      BOOST_TEST(s.size() == static_cast<std::size_t>(ranks));
      BOOST_TEST(std::accumulate(s.begin(), s.end(), i64{0}) == workers * 16);
      BOOST_TEST(s.front() - s.back() <= 16);
      BOOST_TEST(s.front() >= s.back());
    }
}

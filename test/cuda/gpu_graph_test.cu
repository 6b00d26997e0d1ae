// SPDX-License-Identifier: Apache-2.0
// labels: gpu
// timeout: 300
#define BOOST_TEST_MODULE limber.cuda.gpu_graph
#include <limber/cuda/cuda_device.cuh>
#include <limber/cuda/fused_step.hpp>
#include <limber/cuda/graph.cuh>
#include <limber/rule/rules.hpp>
#include <limber/schedule/schedules.hpp>

#include <cuda/device_lists.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/gpu_main.hpp>

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;

namespace {

// Made-up gradients: g[i] is sin-like bits of (step, i), and infinity where it is asked for.
struct backward {
  float* g;
  i64 n;
  i64 const* step;
  i64 bad;

  LIMBER_HD void operator()(i64 i) const {
    std::uint64_t const bits =
        random_bits(3, static_cast<std::uint64_t>(*step), static_cast<std::uint64_t>(i));
    float const x = static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1p-31f;
    g[i] = *step == bad && i == n / 2 ? limber::detail::from_bits(0x7f80'0000u) : x;
  }
};
struct next {
  i64* step;
  LIMBER_HD void operator()(i64) const { ++*step; }
};

constexpr i64 large = 20'003, little = 37;

auto const rate =
    linear_scaling{.base_lr = 0.01, .base_batch = 32} * (warmup(100_steps) | cosine(2000_steps));

// One training run of its own.
template <class R>
struct run {
  gpu::stream stream;
  gpu::executor exec{stream};
  twin w{"w", large, dtype::f32, 0}, gw{"w", large, dtype::f32, 0};
  twin b{"b", little, dtype::f32, 1}, gb{"b", little, dtype::f32, 1};
  shared_array<i64> step_number = exec.share<i64>(1);
  gpu::fused_step<gpu::executor, gpu::schedule_of<decltype(rate)>, std::tuple<R>> step;
  i64 bad;

  run(R const& rule, i64 bad_step)
      : step((fill(), exec), {{"w", w.on_device(), gw.on_device()}, {"b", b.on_device(), gb.on_device()}},
             rule, rate, {.epoch_size = 10'000}),
        bad(bad_step) {}

  void fill() {
    std::mt19937 random(5);
    w.fill(random);
    b.fill(random);
  }
  void gradients() {
    exec.run(large, backward{gw.on_device().as<float>().data(), large, step_number.device, -1});
    exec.run(little, backward{gb.on_device().as<float>().data(), little, step_number.device, bad});
    exec.run(1, next{step_number.device});
  }
  void advance(int i) { step.advance(i % 50 == 49 ? 0 : 32, i < 300 ? 32 : i < 700 ? 256 : 64); }
  [[nodiscard]] cudaStream_t stream_of() const { return stream.get(); }
  [[nodiscard]] std::size_t used_memory() const {
    cudaMemPool_t pool{};
    std::uint64_t used = 0;
    gpu::check(cudaDeviceGetDefaultMemPool(&pool, 0), "cudaDeviceGetDefaultMemPool");
    gpu::check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used),
               "cudaMemPoolGetAttribute");
    return used;
  }
};

template <class R>
void replay_equals_eager(R const& rule, i64 bad) {
  run<R> eager(rule, bad), replayed(rule, bad);
  for (int i = 0; i < 1000; ++i) {
    eager.advance(i);
    eager.gradients();
    eager.step.update();
  }
  replayed.advance(0);
  replayed.gradients();
  replayed.step.update();
  std::size_t const used = replayed.used_memory();
  auto const g = gpu::graph::capture(replayed.stream_of(), [&] {
    replayed.gradients();
    replayed.step.update();
  });
  for (int i = 1; i < 1000; ++i) {
    replayed.advance(i);
    g.launch(replayed.stream_of());
  }
  BOOST_TEST(replayed.used_memory() == used);
  auto const a = eager.step.settle(), b = replayed.step.settle();
  BOOST_TEST(std::memcmp(&a.now, &b.now, sizeof a.now) == 0);
  BOOST_TEST(a.now.steps == (bad >= 0 ? 979 : 980));
  BOOST_TEST(a.now.calls == 1000);
  auto const same = [](twin& x, twin& y) {
    std::vector<std::byte> one(static_cast<std::size_t>(x.on_device().bytes())), two(one.size());
    gpu::check(cudaMemcpy(one.data(), x.on_device().data, one.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    gpu::check(cudaMemcpy(two.data(), y.on_device().data, two.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return one == two;
  };
  BOOST_TEST(same(eager.w, replayed.w));
  BOOST_TEST(same(eager.b, replayed.b));
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_thousand_replays_equal_a_thousand_eager_steps) {
  replay_equals_eager(sgd{.momentum = 0.9, .weight_decay = 1e-4, .nesterov = true}, -1);
  replay_equals_eager(clipped{adamw{}, 1.0}, -1);
}

BOOST_AUTO_TEST_CASE(a_bad_gradient_is_skipped_first_and_later) {
  for (i64 const bad : {0, 500}) replay_equals_eager(sgd{.momentum = 0.9}, bad);
  run<sgd> one(sgd{.momentum = 0.9}, 0);
  one.advance(0);
  one.gradients();
  one.step.update();
  auto const s = one.step.settle();
  BOOST_TEST(s.now.steps == 0);
  BOOST_TEST(one.step.name_of_tensor(s.culprit) == "b");
  BOOST_TEST(one.w.same());  // the host still holds what was uploaded
  BOOST_TEST(one.b.same());
}

BOOST_AUTO_TEST_CASE(memory_that_is_not_the_devices_is_refused_by_name) {
  gpu::stream stream;
  gpu::executor exec{stream};
  std::vector<float> host(8);
  tensor_list const list{view(host, "mine")};
  BOOST_TEST(has(message_of([&] { exec.each(zero{}, out(list)); }), "mine", "host"));
  twin t("odd", 9, dtype::f32, 0);
  tensor_view odd = t.on_device();
  odd.data += 2;
  odd.length = 8;
  tensor_list const shifted{odd};
  BOOST_TEST(has(message_of([&] { exec.each(zero{}, out(shifted)); }), "odd"));
}

BOOST_AUTO_TEST_CASE(memory_may_come_from_the_caller) {
  gpu::stream stream;
  int taken = 0, given = 0;
  {
    gpu::executor exec{stream,
                       gpu::memory_source{[&](std::size_t bytes, cudaStream_t s) -> void* {
                                            void* p = nullptr;
                                            ++taken;
                                            return cudaMallocAsync(&p, bytes, s) == cudaSuccess ? p : nullptr;
                                          },
                                          [&](void* p, cudaStream_t s) {
                                            ++given;
                                            (void)cudaFreeAsync(p, s);
                                          }}};
    twin t("t", 1000, dtype::f32, 0);
    tensor_list const list{t.on_device()};
    slab const mine = exec.make(layout_of(list));
    exec.each(copy{}, out(mine.parts), in(list));
    exec.device().synchronize();
  }
  BOOST_TEST(taken > 0);
  BOOST_TEST(taken == given);
}

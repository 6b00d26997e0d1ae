// SPDX-License-Identifier: Apache-2.0
// labels: kernel memory
// needs: late_cuda
#define BOOST_TEST_MODULE limber.cuda.late_runtime
#include <limber/cuda/cuda_device.cuh>
#include <limber/cuda/fused_step.hpp>
#include <limber/cuda/graph.cuh>
#include <limber/fuse/host.hpp>
#include <limber/rule/rules.hpp>
#include <limber/schedule/schedules.hpp>

#include <cuda/device_lists.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>

#include <string>
#include <utility>
#include <vector>

// The gpu executor over a CUDA runtime where everything happens as late, and in as odd an order, as the
// manual allows.

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;

namespace {

late_cuda::machine& machine() { return late_cuda::machine::one(); }

// Calls that wait for the device, or may.
long waits() {
  auto& c = machine().counts;
  return c["cudaStreamSynchronize"] + c["cudaEventSynchronize"] + c["cudaDeviceSynchronize"] +
         c["cudaMemcpy"] + c["cudaFree"];
}
long allocations() {
  auto& c = machine().counts;
  return c["cudaMalloc"] + c["cudaMallocAsync"] + c["cudaHostAlloc"];
}

// Everything that a case leaves behind runs, and nothing is lost.
struct tidy {
  long live = machine().live();
  ~tidy() {
    machine().finish_all();
    BOOST_TEST(machine().live() == live);
    BOOST_TEST(machine().fault == 0, machine().what);
    BOOST_TEST(machine().current == 0);
  }
};

struct fill_with {
  float x;
  template <class T>
  LIMBER_HD void operator()(T& to) const noexcept {
    to = static_cast<T>(x);
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(the_stand_in)

BOOST_AUTO_TEST_CASE(a_copy_that_nobody_waits_for_has_not_happened) {
  tidy const t;
  gpu::stream s;
  gpu::cuda_device d(s);
  std::byte *const there = d.allocate(8), *const here = d.allocate_host(8);
  std::memset(here, 1, 8);
  d.upload(there, here, 8);
  std::memset(here, 2, 8);  // too early
  d.synchronize();
  BOOST_TEST(std::to_integer<int>(there[0]) == 2);
  d.clear(there, 8);
  BOOST_TEST(std::to_integer<int>(there[0]) == 2);
  d.synchronize();
  BOOST_TEST(std::to_integer<int>(there[0]) == 0);
  d.release(there);
  d.release_host(here);
}

BOOST_AUTO_TEST_CASE(streams_have_no_order_among_themselves_but_events) {
  bool seen[2] = {};
  for (bool const ordered : {false, true})
    for (int k = 0; k < 40; ++k) {
      tidy const t;
      gpu::stream a, b;
      gpu::cuda_device one(a), two(b);
      std::byte* const p = one.allocate(4);
      one.synchronize();
      gpu::stream_event e;
      std::byte* const to = one.allocate_host(4);
      one.clear(p, 4);
      e.mark(a);
      if (ordered) e.hold(b);
      two.download(to, p, 4);
      two.synchronize();
      bool const right = to[0] == std::byte{0};
      if (ordered)
        BOOST_TEST(right);
      else
        seen[right] = true;
      one.release(p);
      one.synchronize();
      one.release_host(to);
    }
  BOOST_TEST((seen[0] && seen[1]));
}

BOOST_AUTO_TEST_CASE(what_must_not_be_captured_ends_the_capture) {
  tidy const t;
  gpu::stream a, b;
  auto const captured = [&](auto&& f) { return message_of([&] { (void)gpu::graph::capture(a.get(), f); }); };
  BOOST_TEST(captured([] {}) == "");
  BOOST_TEST(has(captured([&] { a.operator gpu::stream_view().synchronize(); }), "cudaStreamSynchronize"));
  BOOST_TEST(has(captured([&] {
                   gpu::stream_event e;
                   e.mark(a);
                   (void)e.reached();
                 }),
                 "cudaErrorCapturedEvent"));
  BOOST_TEST(has(captured([&] { (void)gpu::cuda_device(a).allocate_host(8); }), "cudaHostAlloc"));
  gpu::cuda_device one(a), two(b);
  std::byte* const p = one.allocate(8);
  gpu::stream_event fork, join;
  auto const forked = [&](bool joined) {
    return captured([&] {
      fork.mark(a);
      fork.hold(b);
      two.clear(p, 8);
      join.mark(b);
      if (joined) join.hold(a);
    });
  };
  BOOST_TEST(has(forked(false), "cudaErrorStreamCaptureUnjoined"));
  BOOST_TEST(forked(true) == "");
  BOOST_TEST(!one.capturing());
  BOOST_TEST(!two.capturing());
  one.release(p);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_CASE(a_graph_runs_what_was_captured_each_time_it_is_launched) {
  tidy const t;
  gpu::stream s;
  gpu::executor e{s};
  twin x("x", 5000, dtype::f32, 0), sum("sum", 5000, dtype::f32, 0);
  tensor_list const xs{x.on_device()}, sums{sum.on_device()};
  e.each(zero{}, out(sums));
  e.each(fill_with{0.5f}, out(xs));
  e.each(accumulate{}, inout(sums), in(xs));  // 0.5
  auto const g = gpu::graph::capture(s.get(), [&] {
    e.each(fill_with{2}, out(xs));
    e.each(accumulate{}, inout(sums), in(xs));
  });
  for (int k = 0; k < 10; ++k) g.launch(s.get());
  e.each(accumulate{}, inout(sums), in(xs));
  e.device().synchronize();
  BOOST_TEST(sum.on_device().as<float>()[4999] == 0.5f + 20 + 2);
}

BOOST_AUTO_TEST_CASE(what_would_allocate_or_send_is_refused_in_a_capture_and_harms_nothing) {
  tidy const t;
  gpu::stream s;
  gpu::executor e{s};
  twin x("x", 300, dtype::f32, 0), y("y", 300, dtype::f32, 0);
  tensor_list const xs{x.on_device()}, ys{y.on_device()};
  e.each(zero{}, out(xs));
  auto const capture = [&](auto&& f) { return message_of([&] { (void)gpu::graph::capture(s.get(), f); }); };
  BOOST_TEST(
      has(capture([&] { e.each(fill_with{1}, out(ys)); }), "captured", "run the same step once before"));
  BOOST_TEST(has(capture([&] { (void)e.make(layout_of(ys)); }), "captured"));
  auto facts = e.share<i64>(3);
  BOOST_TEST(has(capture([&] { e.publish(facts); }), "captured"));
  (void)e.norm(identity{}, in(xs));
  BOOST_TEST(has(capture([&] { (void)e.norm(identity{}, in(xs)); }), "cudaStreamSynchronize"));
  e.each(fill_with{3}, out(ys));
  e.each(fill_with{4}, out(xs));
  e.device().synchronize();
  BOOST_TEST(y.on_device().as<float>()[299] == 3);
  BOOST_TEST(x.on_device().as<float>()[0] == 4);
}

BOOST_AUTO_TEST_CASE(a_graph_goes_on_reading_the_memory_it_was_captured_with) {
  tidy const t;
  gpu::stream s;
  gpu::executor e{s};
  twin a("x", 300, dtype::f32, 0), b("x", 300, dtype::f32, 0), sum("sum", 300, dtype::f32, 0);
  tensor_list xs{a.on_device()}, sums{sum.on_device()};
  e.each(zero{}, out(sums));
  e.each(fill_with{1}, out(xs));
  e.each(accumulate{}, inout(sums), in(xs));  // 1
  auto const g = gpu::graph::capture(s.get(), [&] { e.each(accumulate{}, inout(sums), in(xs)); });
  xs[0] = b.on_device();  // the same list, elsewhere
  e.each(fill_with{100}, out(xs));
  g.launch(s.get());                          // 1 more
  e.each(accumulate{}, inout(sums), in(xs));  // 100 more
  g.launch(s.get());
  e.device().synchronize();
  BOOST_TEST(sum.on_device().as<float>()[299] == 103);
}

BOOST_AUTO_TEST_CASE(gradients_that_move_every_step_are_read_where_they_are_however_late_the_device_is) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    tidy const t;
    machine().random.seed(seed);
    gpu::stream s;
    gpu::executor e{s};
    host h;
    constexpr int steps = 300, places = 7;
    std::mt19937 random(static_cast<unsigned>(seed));
    std::deque<twin> pool, sum;
    for (int k = 0; k < 2 * places; ++k) {
      pool.emplace_back("g", k % 2 == 0 ? 5000 : 3, dtype::f32, k % 4);
      pool.back().fill(random);
    }
    for (int k = 0; k < 2; ++k) {
      sum.emplace_back("s", k == 0 ? 5000 : 3, dtype::f32, 0);
      sum.back().fill(random);
    }
    tensor_list here{sum[0].on_host(), sum[1].on_host()}, there{sum[0].on_device(), sum[1].on_device()};
    auto facts = e.share<float>(1);
    for (int k = 0; k < steps; ++k) {
      std::size_t const i = 2 * (random() % places), j = 2 * (random() % places) + 1;
      h.each(accumulate{}, inout(here), in(tensor_list{pool[i].on_host(), pool[j].on_host()}));
      tensor_list const moved{pool[i].on_device(), pool[j].on_device()};
      e.each(accumulate{}, inout(there), in(moved));
      facts[0] = static_cast<float>(k);
      e.publish(facts);
    }
    BOOST_TEST(machine().waiting() > 0);
    e.collect(facts);
    BOOST_TEST(facts[0] == steps - 1);
    BOOST_TEST(sum[0].same());
    BOOST_TEST(sum[1].same());
  }
}

// Launches of one step, `advance` included.
template <class R>
void a_step(R const& rule, long launches) {
  tidy const t;
  gpu::stream s;
  gpu::executor e{s};
  std::mt19937 random(1);
  twin w("w", 9000, dtype::f32, 0), g("w", 9000, dtype::f32, 0);
  w.fill(random);
  g.fill(random);
  gpu::fused_step step{e, {{"w", w.on_device(), g.on_device()}}, rule, 0.01};
  auto const one = [&] {
    step.advance(32, 32);
    step.update();
    (void)step.poll();
  };
  one();
  auto& counts = machine().counts;
  long const waited = waits(), allocated = allocations(), launched = counts["cudaLaunchKernelEx"];
  for (int k = 0; k < 200; ++k) one();
  BOOST_TEST(waits() == waited);
  BOOST_TEST(allocations() == allocated);
  BOOST_TEST(counts["cudaLaunchKernelEx"] == launched + launches * 200);
  BOOST_TEST(step.settle().now.steps == 201);
}
BOOST_AUTO_TEST_CASE(a_step_neither_allocates_nor_waits_and_is_a_few_launches) {
  a_step(sgd{.momentum = 0.9}, 1 + 2);
  a_step(clipped{adamw{}, 1.0}, 1 + 2);
  a_step(clipped{lamb{}, 1.0}, 1 + 3);
}

BOOST_AUTO_TEST_CASE(memory_is_given_back_only_when_nothing_uses_it) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    tidy const t;
    machine().random.seed(seed);
    gpu::stream s;
    twin x("x", 70'000, dtype::f32, 0);
    tensor_list const xs{x.on_device()};
    {
      gpu::executor e{s};
      auto facts = e.share<float>(1000);
      slab const own = e.make(layout_of(xs));
      auto norms = make_norms(e, 1);
      e.publish(facts);
      e.each(fill_with{1}, out(own.parts));
      e.measure(norms, identity{}, in(own.parts));
      e.each(copy{}, out(xs), in(own.parts));
      e.fetch(facts);
    }
    machine().finish_all();
    BOOST_TEST(x.on_device().as<float>()[69'999] == 1);
  }
}

BOOST_AUTO_TEST_CASE(an_executor_works_whatever_device_is_current_and_refuses_what_is_elsewhere) {
  tidy const t;
  gpu::stream here;
  gpu::executor e{here};
  twin x("x", 300, dtype::f32, 0);
  tensor_list const xs{x.on_device()};
  gpu::check(cudaSetDevice(1), "cudaSetDevice");
  {
    twin y("y", 300, dtype::f32, 0);
    tensor_list const ys{y.on_device()};
    e.each(fill_with{7}, out(xs));
    auto const facts = e.share<i64>(5);
    e.publish(facts);
    (void)e.norm(identity{}, in(xs));
    BOOST_TEST(machine().current == 1);
    BOOST_TEST(has(message_of([&] { e.each(zero{}, out(ys)); }), "'y'", "device 1", "device 0"));
    BOOST_TEST(has(message_of([&] { gpu::executor{here}; }), "stream", "device 0", "device 1"));
    gpu::stream there;
    gpu::executor other{there};
    other.each(fill_with{8}, out(ys));
    other.device().synchronize();
    BOOST_TEST(y.on_device().as<float>()[0] == 8);
    // One stream waits for the other, across devices.
    auto const done = e.record();
    e.marker_of(done).hold(there);
  }
  gpu::check(cudaSetDevice(0), "cudaSetDevice");
  e.device().synchronize();
  BOOST_TEST(x.on_device().as<float>()[0] == 7);
}

BOOST_AUTO_TEST_CASE(a_kernel_that_fails_is_told_by_the_next_call) {
  tidy t;
  gpu::stream s;
  gpu::executor e{s};
  twin x("x", 300, dtype::f32, 0);
  tensor_list const xs{x.on_device()};
  e.each(zero{}, out(xs));
  e.device().synchronize();
  machine().fault = cudaErrorMisalignedAddress;
  BOOST_TEST(has(message_of([&] { e.each(zero{}, out(xs)); }), "cudaErrorMisalignedAddress"));
  BOOST_TEST(has(message_of([&] { e.device().synchronize(); }), "cudaErrorMisalignedAddress"));
  machine().fault = 0;
}

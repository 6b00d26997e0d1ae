// SPDX-License-Identifier: Apache-2.0
// Everything that promises to run on a device, in a kernel: rules, schedules, functors, dtypes, progress.
// Compiled with all warnings as errors; kernels that name `fp32` must hold no fp64 (device_probe.sh).

#include <limber/fuse/functors.hpp>
#include <limber/rule/rules.hpp>
#include <limber/schedule/schedules.hpp>

#include <schedule/every_schedule.hpp>
#include <support/all_rules.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace probe {

using namespace limber;

// In the name of every kernel, and so in PTX.
struct fp32 {
  using type = float;
};
struct fp64 {
  using type = double;
};

__device__ i64 index() { return i64{blockIdx.x} * blockDim.x + threadIdx.x; }

// --- rules: one element of a step, with every number of slots that the rule accepts

template <std::size_t, class T>
using one_slot = T;

template <class R, class T, std::size_t... J>
__device__ void step_with(std::index_sequence<J...>, coefficients_of<R, T> c, norms<T> n, T& p, T g,
                          T* slot) {
  if constexpr (detail::updates_with<R, T, one_slot<J, T>...>) p = R::update(c, p, g, slot[J]...);
  if constexpr (detail::directs_with<R, T, one_slot<J, T>...>) {
    T const d = R::direction(c, p, g, slot[J]...);
    if constexpr (two_pass<R>) c = R::refine_direction(c, n);
    p = R::apply(c, p, d, slot[J]...);
  }
}

template <class P, class R, std::size_t... Count>
__global__ void step(coefficients_of<R, typename P::type> c, norms<typename P::type> n,
                     typename P::type* data, std::size_t used, std::index_sequence<Count...>) {
  using T = typename P::type;
  constexpr i64 slots = sizeof...(Count) - 1;
  if constexpr (uses_norms<R>) c = R::refine(c, n);
  T* const x = data + (slots + 2) * index();  // parameter, gradient, slots
  ((used == Count ? step_with<R, T>(std::make_index_sequence<Count>{}, c, n, x[0], x[1], x + 2) : void()),
   ...);
}

// Coefficients for both types, computed by one thread in double.
template <class P, class R>
__global__ void fold(R r, update_facts f, coefficients_of<R, float>* narrow, coefficients_of<R, double>* wide,
                     int* used, rounding* how) {
  *narrow = on_device<float>(r, f);
  *wide = on_device<double>(r, f);
  *used = slots_used(r);
  *how = rounding_of(r, f.t);
}

template <class R>
void launch_rule(R const& r) {
  static_assert(std::is_trivially_copyable_v<R>);
  static_assert(std::is_trivially_copyable_v<coefficients_of<R, float>>);
  static_assert(std::is_trivially_copyable_v<coefficients_of<R, double>>);
  constexpr auto counts = std::make_index_sequence<R::slots.size() + 1>{};
  step<fp32, R><<<1, 1>>>(r.template at<float>({}), {}, nullptr, 0, counts);
  step<fp64, R><<<1, 1>>>(r.template at<double>({}), {}, nullptr, 0, counts);
  fold<fp64><<<1, 1>>>(r, {}, nullptr, nullptr, nullptr, nullptr);
}

// --- schedules and progress: one thread, in double

template <class P, class S>
__global__ void rate(S s, progress const* p, double* out) {
  *out = on_device(s, *p);
}

template <class P>
__global__ void advance(progress* p, scalar* weight, double batch, double target, double squares,
                        double square) {
  p->noise.update(2, batch, squares, square);
  p->batch = p->batch.rearmed(p->steps, target, ramp_rule{});
  if (!p->batch.running(p->steps)) p->batch = p->batch.rearmed(p->steps, target, immediate);
  p->steps += 1;
  *weight = scalar(batch / target);
  p->samples += static_cast<i64>(p->effective_batch() + p->planned_batch() + p->in(unit::epochs));
}

void launch_schedules() {
  test::for_every_schedule(epochs(90), [](char const*, auto const& s) {
    static_assert(device_schedule<std::remove_cvref_t<decltype(s)>>);
    rate<fp64><<<1, 1>>>(s, nullptr, nullptr);
  });
  advance<fp64><<<1, 1>>>(nullptr, nullptr, 1, 1, 1, 1);
}

// --- functors, one element a thread

template <class P, class F, class... X>
__global__ void each(F f, X*... x) {
  f(x[index()]...);
}

template <class P, class F, class Y, class... X>
__global__ void measure(F f, Y* y, X*... x) {
  y[index()] = f(x[index()]...);
}

template <class P>
void launch_functors() {
  typename P::type* x = nullptr;
  typename P::type const* y = nullptr;
  each<P><<<1, 1>>>(zero{}, x);
  each<P><<<1, 1>>>(copy{}, x, y);
  each<P><<<1, 1>>>(scaled_copy{0.1}, x, y);
  each<P><<<1, 1>>>(accumulate{}, x, y);
  each<P><<<1, 1>>>(step_back{0.1}, x, y, y);
  each<P><<<1, 1>>>(blend{0.1}, x, y);
  measure<P><<<1, 1>>>(identity{}, x, y);
  measure<P><<<1, 1>>>(pack{0.1, true}, x, x, x);
  measure<P><<<1, 1>>>(pack{0.1}, x, x, y, x);
  measure<P><<<1, 1>>>(difference{0.1}, x, x, y, y);
  measure<P><<<1, 1>>>(weighted{0.1}, x, x, y);
}

// --- dtypes: load, store to nearest, store stochastically

template <class P, class H>
__global__ void convert(float const* x, H* nearest, H* drawn, float* back, rounding how) {
  i64 const i = index();
  nearest[i] = H(x[i]);
  if (how.stochastic) drawn[i] = H(x[i], how.bits(i));
  back[i] = static_cast<float>(drawn[i]);
}

// --- a user's parts that are host-only: no warning as long as the host alone calls them

struct host_rule {
  static constexpr std::array<slot, 0> slots{};
  template <class T>
  struct coefficients {
    T step;
  };
  template <class T>
  coefficients<T> at(update_facts f) const {
    return {static_cast<T>(-f.rate)};
  }
  int slot_count() const { return 0; }
  rounding rounding_at(i64) const { return {}; }
  template <class T>
  static LIMBER_HD T update(coefficients<T> const& c, T p, T g) {
    return math::fma(c.step, g, p);
  }
};

double on_the_host(progress const& p) {
  auto const mine = [](progress const& q) { return static_cast<double>(q.steps); };
  auto const s = clamp(0.5 * mine * warmup(steps(5)), 0, 1) * piecewise(mine, steps(4), 0.1);
  auto const t = lasting(steps(4), mine) | mine;
  clipped<ema<master<host_rule>>> const r{{{host_rule{}}}};
  auto const c = r.at<float>({.rate = 0.1});
  auto const how = rounding_of(r, 3);
  return s(p) + t(p) + static_cast<double>(c.max_norm) + slots_used(r) + (how.stochastic ? 1 : 0);
}

void launch_all() {
  limber::testing::for_each_rule([](auto const& r) { launch_rule(r); });
  launch_schedules();
  launch_functors<fp32>();
  launch_functors<fp64>();
  convert<fp32, bf16><<<1, 1>>>(nullptr, nullptr, nullptr, nullptr, {});
  convert<fp32, f16><<<1, 1>>>(nullptr, nullptr, nullptr, nullptr, {});
}

}  // namespace probe

// SPDX-License-Identifier: Apache-2.0
// Kernels for test/ptx/check.sh to look at; they are never launched. Each is told by the name of a type
// in namespace `probe`, which is found again in its mangled name.
#include <limber/cuda/each_body.hpp>
#include <limber/cuda/launch.cuh>
#include <limber/cuda/norm_body.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/rule_functors.hpp>
#include <limber/rule/adamw.hpp>
#include <limber/rule/lamb.hpp>
#include <limber/rule/master.hpp>
#include <limber/rule/sgd.hpp>

namespace limber_test {

using limber::dtype;

// The congruent path alone: types and alignments are constants here, and the compiler drops the rest.
// Name::of(k) is operand k's type.
template <class Name, class F, limber::access_mode... A>
__global__ void __launch_bounds__(256)
    congruent(F f, std::byte* p0, std::byte* p1, std::byte* p2, std::byte* p3, std::byte* p4, int left) {
  [[maybe_unused]] std::byte* const data[] = {p0, p1, p2, p3, p4};
  limber::gpu::operand_entry table[sizeof...(A)];
  limber::gpu::each_body<float, F, A...> body{f, {}, nullptr, 0};
#pragma unroll
  for (int k = 0; k < static_cast<int>(sizeof...(A)); ++k) {
    dtype const type = Name::of(k);
    table[k] = {data[k], type, limber::gpu::widest, 0, static_cast<std::uint8_t>(type == dtype::f32 ? 4 : 8)};
    body.list[k] = {&table[k], nullptr, nullptr};
  }
  limber::gpu::leaf const whole{0, left, 0, 0};
  body.leaves = &whole;
  body(limber::gpu::warp{}, 0);
}

}  // namespace limber_test

namespace probe {

using namespace limber;
using gpu::each_body, gpu::norm_body;

constexpr limber::access_mode i = limber::access_mode::in, o = limber::access_mode::out,
                              io = limber::access_mode::inout;

// The kernels as an executor launches them, for tensors of any type and alignment.
struct sgd_step : limber::detail::update_source<sgd> {};
struct adamw_step : limber::detail::update_source<adamw> {};
struct master_step : limber::detail::update_source<master<adamw>> {};
struct lamb_direction : limber::detail::direct_source<lamb> {};
struct lamb_step : limber::detail::apply_source<lamb, true> {};
struct norm_of_one : identity {};
struct norm_of_two : limber::detail::gradient_and_value {};
struct packing : pack {};
struct cast : copy {};
struct unpacking : scaled_copy {};
struct accumulating : accumulate {};
struct differing : difference {};
struct stepping_back : step_back {};
struct blending : blend {};

template <class... Body>
void* as_launched() {
  void* any = nullptr;
  ((any = reinterpret_cast<void*>(&gpu::run_items<Body>)), ...);
  return any;
}
template void*
as_launched<each_body<float, sgd_step, io, io, io>, each_body<float, adamw_step, io, io, io, io>,
            each_body<double, adamw_step, io, io, io, io>, each_body<float, master_step, io, io, io, io, io>,
            norm_body<float, 2, lamb_direction, io, i, io, io>, each_body<float, lamb_step, io, io>,
            norm_body<float, 1, norm_of_one, i>, norm_body<double, 1, norm_of_one, i>,
            norm_body<float, 2, norm_of_two, i, i>, norm_body<float, 1, packing, o, io>,
            each_body<float, cast, o, i>, each_body<float, unpacking, o, i>,
            each_body<float, accumulating, io, i>, norm_body<float, 1, differing, o, i, i>,
            each_body<float, stepping_back, o, i, i>, each_body<float, blending, io, i>>();

template <dtype... D>
struct types {
  __device__ static constexpr dtype of(int k) {
    dtype const all[] = {D...};
    return all[k];
  }
};
template <update_rule R>
using element = limber::detail::update_element<R, float>;

// A name ends in the number of operands that are loaded and of those that are stored.
#define LIMBER_CONGRUENT(name, f, operands, ...)                                             \
  struct name : types<__VA_ARGS__> {};                                                       \
  void* as_launched(name) {                                                                  \
    return reinterpret_cast<void*>(&limber_test::congruent<name, f LIMBER_UNPACK operands>); \
  }
#define LIMBER_UNPACK(...) , __VA_ARGS__

constexpr dtype f32 = dtype::f32, half = dtype::f16, brain = dtype::bf16;

LIMBER_CONGRUENT(adamw_f32_4_4, element<adamw>, (io, io, io, io), f32, f32, f32, f32)
LIMBER_CONGRUENT(adamw_bf16_4_4, element<adamw>, (io, io, io, io), brain, brain, f32, f32)
LIMBER_CONGRUENT(adamw_f16_4_4, element<adamw>, (io, io, io, io), half, half, half, half)
LIMBER_CONGRUENT(master_bf16_5_5, element<master<adamw>>, (io, io, io, io, io), brain, brain, f32, f32, f32)
LIMBER_CONGRUENT(sgd_f32_3_2, element<sgd>, (io, i, io), f32, f32, f32)
LIMBER_CONGRUENT(pack_f32_1_2, pack, (o, io), f32, f32)
LIMBER_CONGRUENT(pack_bf16_1_2, pack, (o, io), brain, f32)
LIMBER_CONGRUENT(copy_bf16_1_1, copy, (o, i), f32, brain)
LIMBER_CONGRUENT(copy_f16_1_1, copy, (o, i), half, half)

}  // namespace probe

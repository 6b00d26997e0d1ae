// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Functors and lists with which the kernel bodies are compared with the host executor.

#include <limber/core/math.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/host.hpp>

#include <cuda/random_lists.hpp>

namespace limber::test {

using emulated = gpu::basic_executor<gpu::emulator>;

[[nodiscard]] inline emulated make_emulated(std::uint64_t seed, i64 warps = 64) {
  return emulated{gpu::emulator::options{seed, warps, {}}};
}

/// x ← y/2 + x z, z ← x − y, and returns x; its factor differs from tensor to tensor.
template <class T>
struct mix_element {
  T factor;
  LIMBER_HD T operator()(T& x, T const& y, T& z) const noexcept {
    x = math::fma(factor, y, math::mul(x, z));
    z = math::sub(x, y);
    return x;
  }
};
struct mix_three {
  template <class T>
  [[nodiscard]] LIMBER_HD mix_element<T> at(i64 t) const noexcept {
    return {static_cast<T>(t % 7 + 1) * T(0.25)};
  }
};

/// out ← x + y, and returns both.
struct add_both {
  template <class T>
  LIMBER_HD two<T> operator()(T& out, T const& x, T const& y) const noexcept {
    out = math::add(x, y);
    return {x, y};
  }
};

/// Three lists of the same lengths.
struct three_lists {
  owned_list x, y, z;
};

/// How the three lists lie in memory.
enum class lie { aligned, together, apart };

[[nodiscard]] inline three_lists draw_lists(std::mt19937& random, std::vector<i64> const& lengths, lie how,
                                            bool f64, bool only_f32, values kind) {
  std::uniform_int_distribution<int> shift(0, 7), one_in_four(0, 3), narrow(0, 2);
  dtype const narrow_types[] = {dtype::f32, dtype::bf16, dtype::f16};
  three_lists out;
  for (i64 n : lengths) {
    bool const wide = f64 && one_in_four(random) == 0;
    int const common = shift(random);
    for (auto* l : {&out.x, &out.y, &out.z}) {
      dtype const type = wide ? dtype::f64 : only_f32 ? dtype::f32 : narrow_types[narrow(random)];
      auto const size = static_cast<std::size_t>(size_of(type));
      auto const elements = how == lie::aligned ? 0 : how == lie::together ? common : shift(random);
      l->add(n, type, static_cast<std::size_t>(elements) * size % 16);
    }
  }
  for (auto* l : {&out.x, &out.y, &out.z}) fill(l->list, random, kind);
  return out;
}

/// Lengths at every edge there is, then some at random.
[[nodiscard]] inline std::vector<i64> edgy_lengths(std::mt19937& random) {
  std::vector<i64> out = {0,   1,   2,   3,   5,    7,    8,    9,    31,   33,   63,     127,   255,
                          256, 257, 511, 513, 4095, 4096, 4097, 4099, 4103, 4105, 20'000, 8'192, 0};
  std::uniform_int_distribution<i64> any(0, 9000);
  for (int k = 0; k < 6; ++k) out.push_back(any(random));
  std::shuffle(out.begin(), out.end(), random);
  return out;
}

}  // namespace limber::test

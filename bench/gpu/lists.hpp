// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The lists of tensors that GPU kernels are measured on, made from the models' architectures.

#include "../fuse/lists.hpp"

#include <cstdint>
#include <vector>

namespace limber::bench {

/// The 148 parameters of GPT-2 124M: 124.4 million elements. The output layer is the embedding.
inline std::vector<i64> gpt2_lengths() {
  constexpr i64 width = 768, words = 50257, positions = 1024;
  std::vector<i64> out{words * width, positions * width};
  auto norm = [&] { out.insert(out.end(), {width, width}); };
  auto linear = [&](i64 from, i64 to) { out.insert(out.end(), {from * to, to}); };
  for (int layer = 0; layer < 12; ++layer) {
    norm();
    linear(width, 3 * width);
    linear(width, width);
    norm();
    linear(width, 4 * width);
    linear(4 * width, width);
  }
  norm();
  return out;
}

/// The 201 parameters of a Llama-like model of 22 layers, 2,048 wide, with 4 groups of keys and values:
/// 1.1 billion elements.
inline std::vector<i64> llama_lengths() {
  constexpr i64 width = 2048, shared = 256, inner = 5632, words = 32000;
  std::vector<i64> out{words * width};
  for (int layer = 0; layer < 22; ++layer)
    out.insert(out.end(), {width, width * width, width * shared, width * shared, width * width,  //
                           width, width * inner, width * inner, inner * width});
  out.insert(out.end(), {width, words * width});
  return out;
}

/// 10,000 tensors of 1 to 2,000 elements, every length five times: 10 million elements.
inline std::vector<i64> small_lengths() {
  std::vector<i64> out;
  for (i64 t = 0; t < 10'000; ++t) out.push_back(1 + 7919 * t % 2000);
  return out;
}

/// All lists; a 4,096th of each in a quick run, of the small tensors every hundredth.
inline std::vector<shapes> gpu_lists(bool quick) {
  auto cut = [&](std::vector<i64> lengths) {
    if (quick)
      for (auto& k : lengths) k = (k + 4095) / 4096;
    return lengths;
  };
  auto small = small_lengths();
  if (quick) small.resize(100);
  std::vector<shapes> out;
  out.emplace_back("resnet50", cut(resnet50_lengths()));
  out.emplace_back("gpt2", cut(gpt2_lengths()));
  out.emplace_back("llama1b", cut(llama_lengths()));
  out.emplace_back("small10000", small);
  out.emplace_back("flat1e9", cut({1'000'000'000}));
  return out;
}

}  // namespace limber::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The lists of tensors that steps are measured on.

#include <limber/core/tensor.hpp>
#include <limber/fuse/layout.hpp>

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace limber::bench {

/// Lengths, and where each tensor starts in an array that holds all: on a cache line, as frameworks do.
struct shapes {
  std::string name;
  std::vector<i64> lengths;
  std::vector<i64> starts{};
  std::vector<std::string> names{};
  i64 elements = 0;  ///< without padding
  i64 extent = 0;    ///< with it

  shapes(std::string n, std::vector<i64> l) : name(std::move(n)), lengths(std::move(l)) {
    for (i64 const k : lengths) {
      char number[16];
      std::snprintf(number, sizeof number, "%06zu", names.size());
      names.emplace_back(number);
      starts.push_back(extent);
      extent += round_up(k, 32);
      elements += k;
    }
  }

  template <class T>
  [[nodiscard]] tensor_list views(std::span<T> array) const {
    tensor_list out;
    for (std::size_t t = 0; t < lengths.size(); ++t)
      out.push_back(
          view(array.subspan(static_cast<std::size_t>(starts[t]), static_cast<std::size_t>(lengths[t])),
               names[t]));
    return out;
  }

  /// Calls f(thread, tensor, first, count) for equal shares of all elements, `first` in the array.
  template <class F>
  void split(int threads, F const& f) const {
    auto const part = [&](i64 k) {
      i64 const begin = elements * k / threads, end = elements * (k + 1) / threads;
      i64 before = 0;
      for (std::size_t t = 0; t < lengths.size(); ++t) {
        i64 const from = std::max<i64>(begin - before, 0), to = std::min(end - before, lengths[t]);
        if (from < to) f(static_cast<std::size_t>(k), t, starts[t] + from, to - from);
        before += lengths[t];
      }
    };
#if defined(_OPENMP)
    if (threads > 1) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
      for (int k = 0; k < threads; ++k) part(k);
      return;
    }
#endif
    part(0);
  }
};

/// The 161 parameters of a ResNet-50 for 1,000 classes: 25.6 million elements, 64 to 2.4 million each.
inline std::vector<i64> resnet50_lengths() {
  std::vector<i64> out;
  auto convolution = [&](i64 from, i64 to, i64 side) {
    // The filter, and scale and shift of the norm after it.
    for (i64 const k : {from * to * side * side, to, to}) out.push_back(k);
  };
  convolution(3, 64, 7);
  i64 channels = 64, width = 64;
  for (int const blocks : {3, 4, 6, 3}) {
    for (int b = 0; b < blocks; ++b) {
      convolution(channels, width, 1);
      convolution(width, width, 3);
      convolution(width, 4 * width, 1);
      if (b == 0) convolution(channels, 4 * width, 1);
      channels = 4 * width;
    }
    width *= 2;
  }
  for (i64 const k : {channels * 1000, i64{1000}}) out.push_back(k);
  return out;
}

/// All lists; a 64th of each in a quick run.
inline std::vector<shapes> all_shapes(bool quick) {
  auto cut = [&](std::vector<i64> lengths) {
    if (quick)
      for (auto& k : lengths) k = (k + 63) / 64;
    return lengths;
  };
  std::vector<shapes> out;
  out.emplace_back("flat", cut({i64{8} << 20}));
  out.emplace_back("resnet50", cut(resnet50_lengths()));
  out.emplace_back("2000x1000", cut(std::vector<i64>(2000, 1000)));
  return out;
}

}  // namespace limber::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Combines the copies of one tensor in the files of several workers.

#include <limber/core/dtype.hpp>
#include <limber/core/math.hpp>
#include <limber/state/content_hash.hpp>
#include <limber/state/tensor_file.hpp>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace limber::state::detail {

template <class T>
[[nodiscard]] double widened(T x) noexcept {
  if constexpr (sizeof(T) == 2)
    return static_cast<double>(static_cast<float>(x));
  else
    return static_cast<double>(x);
}
template <class T>
[[nodiscard]] T narrowed(double x) noexcept {
  if constexpr (sizeof(T) == 2)
    return T(static_cast<float>(x));
  else
    return static_cast<T>(x);
}

/// Reads a tensor from several files in step: calls f(place, bytes) with consecutive portions of x, where
/// each element is
///
///     x = (Σ wᵣ xᵣ) / d
///
/// in double, in rank order, then rounded. Compares the hashes afterwards.
/// @pre every file has the tensor, with the same floating dtype and length
template <class F>
void each_sum(std::vector<tensor_file const*> const& files, std::string_view name,
              std::vector<double> const& weights, double divisor, F const& f) {
  tensor_entry const& first = *files.front()->find(name);
  std::vector<content_hash> hashes(files.size());
  auto const size = static_cast<std::size_t>(size_of(first.type));
  std::vector<std::byte> chunk(std::min(chunk_bytes, static_cast<std::size_t>(first.bytes())));
  std::vector<double> sum(chunk.size() / size);
  for (i64 at = 0; at < first.bytes(); at += static_cast<i64>(chunk.size())) {
    chunk.resize(std::min(chunk.size(), static_cast<std::size_t>(first.bytes() - at)));
    sum.assign(chunk.size() / size, 0);
    with_type(first.type, [&]<class T>() {
      for (std::size_t r = 0; r < files.size(); ++r) {
        files[r]->read(*files[r]->find(name), at, chunk);
        hashes[r].update(chunk);
        for (std::size_t k = 0; k < sum.size(); ++k) {
          T x;
          std::memcpy(&x, chunk.data() + k * size, size);
          sum[k] = math::fma(weights[r], widened(x), sum[k]);
        }
      }
      for (std::size_t k = 0; k < sum.size(); ++k) {
        T const x = narrowed<T>(math::div(sum[k], divisor));
        std::memcpy(chunk.data() + k * size, &x, size);
      }
    });
    f(at, std::span<std::byte const>(chunk));
  }
  for (std::size_t r = 0; r < files.size(); ++r) files[r]->expect_hash(*files[r]->find(name), hashes[r]);
}

}  // namespace limber::state::detail

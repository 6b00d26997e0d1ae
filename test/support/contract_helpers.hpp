// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the cases of the collective contract share.

#include <limber/comm/collective.hpp>

#include <support/contract_values.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <tuple>
#include <vector>

namespace limber::test {

template <class... H>
[[nodiscard]] constexpr int declared_skips(std::tuple<H...> const*) noexcept {
  return (0 + ... + H::skipped_parts);
}

inline int& skipped_parts() {
  static int count = 0;
  return count;
}
inline void skip(char const* part, char const* capability) {
  ++skipped_parts();
  std::printf("contract: skipped: %s: the engine is not %s\n", part, capability);
}

template <class H, class F>
void in_every_world(F f) {
  for (int n = 1; n <= H::largest_world; ++n) H::run(n, f);
}

/// True on every rank if all ranks bring the same number.
template <class H, class C>
[[nodiscard]] bool same_everywhere(C& comm, i64 number) {
  typename H::template buffer<i64> mine(std::vector<i64>{number});
  typename H::template buffer<i64> all(std::vector<i64>(static_cast<std::size_t>(comm.size())));
  comm.all_gather(mine.view("checksum"), all.view("checksums")).wait();
  auto const numbers = all.read();
  return std::ranges::all_of(numbers, [&](i64 k) { return k == numbers[0]; });
}

template <class H, class T, class C>
[[nodiscard]] std::vector<T> all_reduced(C& comm, std::vector<T> const& values,
                                         reduction how = reduction::sum) {
  typename H::template buffer<T> in(values), out(std::vector<T>(values.size()));
  comm.all_reduce(in.view("in"), out.view("out"), how).wait();
  demand(same_bits(in.read(), values), "rank ", comm.rank(), ": the input of all_reduce changed");
  return out.read();
}

/// What an engine of known order must give: the sum from rank 0 upward, rounded once.
template <class T>
[[nodiscard]] std::vector<T> summed_in_rank_order(int ranks, std::size_t length) {
  std::vector<T> result(length);
  for (std::size_t i = 0; i < length; ++i) {
    auto sum = widened(uneven<T>(0, i));
    for (int r = 1; r < ranks; ++r) sum += widened(uneven<T>(r, i));
    result[i] = static_cast<T>(sum);
  }
  return result;
}

inline std::vector<std::size_t> const contract_lengths{0, 1, 2, 37, 1025};
inline constexpr std::size_t large_length = 1'000'003;

}  // namespace limber::test

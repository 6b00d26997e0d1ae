// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/agreement.hpp>

#include <cstring>
#include <vector>

namespace limber::sync {

LIMBER_FN void agreement::write(double* to, training_context const& at, int ranks) {
  std::uint64_t all;
  std::memcpy(&all, &at.rate, sizeof all);
  all = (all ^ static_cast<std::uint64_t>(at.id)) * 0xd6e8'feb8'6659'fd93u;
  all = (all ^ at.inner.frozen_hash()) * 0x9e37'79b9'7f4a'7c15u;
  all = (all ^ (all >> 29)) * 0xbf58'476d'1ce4'e5b9u;
  int bits = 21;  // ranks · h² must stay below 2^53
  for (i64 n = 2048; n < ranks; n *= 4) --bits;
  auto const few = static_cast<double>((all ^ (all >> 32)) & ((std::uint64_t{1} << bits) - 1));
  to[0] = 1;
  to[1] = few;
  to[2] = few * few;
}

LIMBER_COLD LIMBER_FN void agreement::expect(double const* sums, training_context const& at,
                                             communicator group) {
  if (sums[0] * sums[2] == sums[1] * sums[1]) return;
  auto const failed = [](std::size_t rank, std::string bucket, std::string reason) {
    return error({"sync", "exchange", 0, static_cast<int>(rank), std::move(bucket),
                  std::move(reason) + "; nothing was updated"});
  };
  auto const n = static_cast<std::size_t>(group.size());
  auto const& values = at.inner.values();
  auto const gathered = [&]<class T>(std::vector<T> const& mine, char const* name) {
    std::vector<T> all(n * mine.size());
    group.all_gather(const_view(mine, name), view(all, name)).wait();
    return all;
  };
  auto const ids = gathered(std::vector{at.id}, "optimizers");
  for (std::size_t r = 1; r < n; ++r)
    if (ids[r] != ids[0])
      throw failed(
          r, values.empty() ? "" : std::string(values[0].name),
          text("rank ", r,
               " uses another optimizer than rank 0: optimizers that share a communicator must be used in "
               "the same order on all ranks"));
  auto const rates = gathered(std::vector{at.rate}, "rates");
  for (std::size_t r = 1; r < n; ++r)
    if (rates[r] != rates[0])
      throw failed(r, {},
                   text("the rate is ", rates[0], " on rank 0 and ", rates[r], " on rank ", r,
                        ": the schedule must give the same on all ranks"));
  std::vector<i64> frozen;
  for (std::size_t i = 0; i < values.size(); ++i) frozen.push_back(at.inner.is_frozen(i) ? 1 : 0);
  auto const all = gathered(frozen, "frozen tensors");
  for (std::size_t k = values.size(); k < all.size(); ++k)
    if (std::size_t const r = k / values.size(), i = k % values.size(); all[k] != all[i])
      throw failed(r, std::string(values[i].name),
                   text("'", values[i].name, "' is frozen on rank ", all[k] != 0 ? r : 0, " and not on rank ",
                        all[k] != 0 ? 0 : r, ": freeze() is a call of all ranks"));
  throw failed(0, {}, "ranks differ in rate or frozen tensors for a moment; call all of them alike");
}

}  // namespace limber::sync

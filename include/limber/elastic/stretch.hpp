// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Samples by where they stand in an epoch's permutation.

#include <limber/core/config.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace limber::elastic {

/// Positions [first, first + count) of the permutation of `epoch`.
struct stretch {
  i64 epoch = 0, first = 0, count = 0;

  friend bool operator==(stretch const&, stretch const&) = default;
};

/// Puts `s` where it belongs into an ordered list of disjoint stretches, and joins neighbours.
/// @pre s overlaps none of them
inline void put_in(std::vector<stretch>& list, stretch s) {
  if (s.count == 0) return;
  auto const before = [](stretch const& a, stretch const& b) {
    return a.epoch != b.epoch ? a.epoch < b.epoch : a.first < b.first;
  };
  auto const touch = [](stretch const& a, stretch const& b) {
    return a.epoch == b.epoch && a.first + a.count == b.first;
  };
  auto at = list.insert(std::upper_bound(list.begin(), list.end(), s, before), s);
  if (auto const next = at + 1; next != list.end() && touch(*at, *next)) {
    at->count += next->count;
    list.erase(next);
  }
  if (at != list.begin() && touch(*(at - 1), *at)) {
    (at - 1)->count += at->count;
    list.erase(at);
  }
}

/// Removes the first `count` positions of the first stretch. @pre it has as many
inline void take_off(std::vector<stretch>& list, i64 count) {
  list.front().first += count;
  list.front().count -= count;
  if (list.front().count == 0) list.erase(list.begin());
}

}  // namespace limber::elastic

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Ranges of samples, by their positions in an epoch's permutation.

#include <limber/core/config.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace limber::elastic {

/// Positions [first, first + count) of the permutation of `epoch`.
struct sample_range {
  i64 epoch = 0, first = 0, count = 0;

  friend bool operator==(sample_range const&, sample_range const&) = default;
};

/// Inserts `s` into an ordered list of disjoint ranges, and merges adjacent ranges.
/// @pre s overlaps no range of the list
inline void insert_range(std::vector<sample_range>& list, sample_range s) {
  if (s.count == 0) return;
  auto const before = [](sample_range const& a, sample_range const& b) {
    return a.epoch != b.epoch ? a.epoch < b.epoch : a.first < b.first;
  };
  auto const touch = [](sample_range const& a, sample_range const& b) {
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

/// Removes the first `count` positions of the first range. @pre it has at least `count`
inline void remove_front(std::vector<sample_range>& list, i64 count) {
  list.front().first += count;
  list.front().count -= count;
  if (list.front().count == 0) list.erase(list.begin());
}

}  // namespace limber::elastic

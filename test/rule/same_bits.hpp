// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Bitwise comparison of rules.

#include "paper.hpp"

#include <boost/test/unit_test.hpp>

#include <cstring>
#include <string>
#include <vector>

namespace limber::testing {

/// The same bits, the sign of zero included.
template <class T>
[[nodiscard]] bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Runs two rules side by side and compares every bit of their parameters.
template <class T, class A, class B>
[[nodiscard]] bool same_trajectory(A const& a, B const& b) {
  drive<A, T> left(a, as<T>(start));
  drive<B, T> right(b, as<T>(start));
  for (i64 t = 1; t <= 100; ++t) {
    auto const g = as<T>(gradient_at(t, start.size()));
    left.step(g, 0.01 * rate_at(t), 3);
    right.step(g, 0.01 * rate_at(t), 3);
    if (!same_bits(left.p(), right.p())) return false;
  }
  return true;
}

/// One check for all types: a BOOST_TEST in a generic lambda takes long to compile.
inline void holds(bool ok, std::string const& rule) { BOOST_TEST(ok, rule); }

}  // namespace limber::testing

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A rule's fingerprint: what it does to a made-up element.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/rule_functors.hpp>
#include <limber/rule/rule.hpp>

#include <array>
#include <cstddef>
#include <utility>

namespace limber::detail {

/// Mixes in what `rule` does to one made-up element: rules that differ in type or in a
/// hyper-parameter that matters give other bits.
template <update_rule R, std::size_t K = 0>
void mix_rule(fingerprint& h, R const& rule) {
  if (static_cast<std::size_t>(slots_used(rule)) != K) {
    if constexpr (K < R::slots.size()) mix_rule<R, K + 1>(h, rule);
    return;
  }
  constexpr auto indices = std::make_index_sequence<K>{};
  if constexpr (takes_slots<R>(indices)) {
    for (i64 t : {1, 3}) {
      auto c = rule.template at<double>(update_facts{t, 0.5, 0.25});
      if constexpr (uses_norms<R>) c = R::refine(c, norms<double>{2, 300, 4000});
      double const p = 1.25, g = 0.75;
      std::array<double, K + 1> s{};
      for (std::size_t k = 0; k + 1 < s.size(); ++k) s[k] = 0.5 + static_cast<double>(k);
      [&]<std::size_t... J>(std::index_sequence<J...>) {
        if constexpr (two_pass<R>) {
          double const d = R::direction(c, p, g, s[J]...);
          c = R::refine_direction(c, norms<double>{2, 3, 4000});
          s[K] = R::apply(c, p, d, s[J]...);
        } else {
          s[K] = R::update(c, p, g, s[J]...);
        }
      }
      (indices);
      for (double x : s) h.mix(x);
    }
  }
}

}  // namespace limber::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Plain gradient descent, the rule without state.

#include <limber/core/math.hpp>
#include <limber/rule/rule.hpp>

namespace limber {

/// p ← p − η g.
///
/// State    none.
/// Choices  as the outer rule of a merge at rate 1 it is the plain average of models.
struct descent {
  static constexpr std::array<slot, 0> slots{};

  template <class T>
  struct coefficients {
    T minus_rate;
  };

  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    return {static_cast<T>(-f.rate)};
  }

  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g) noexcept {
    return math::fma(c.minus_rate, g, p);
  }
};

static_assert(update_rule<descent>);

}  // namespace limber

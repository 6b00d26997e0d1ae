// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The element-wise operations that strategies are made of: each is one pass of an executor.

#include <limber/core/config.hpp>
#include <limber/core/math.hpp>

namespace limber {

/// x ↦ x; `norm(identity{}, in(list))` is the norm of the list.
struct identity {
  template <class T>
  LIMBER_HD T operator()(T const& x) const noexcept {
    return x;
  }
};

/// x ← 0.
struct zero {
  template <class T>
  LIMBER_HD void operator()(T& x) const noexcept {
    x = T(0);
  }
};

/// to ← from; between lists of different dtype it is the cast.
struct copy {
  template <class T>
  LIMBER_HD void operator()(T& to, T const& from) const noexcept {
    to = from;
  }
};

/// to ← factor · from; unpacks and normalises.
struct scaled_copy {
  double factor = 1;
  template <class T>
  LIMBER_HD void operator()(T& to, T const& from) const noexcept {
    to = math::mul(static_cast<T>(factor), from);
  }
};

/// Packs a gradient: sum ← w g (+ sum when `carry`), g ← 0, and returns g, for Σ g² in the same pass.
///
/// With w = 0 nothing of g is looked at: a worker without samples may hold anything.
struct pack {
  double weight = 1;
  bool carry = false;  ///< the sum already holds something

  template <class T>
  LIMBER_HD T operator()(T& sum, T& g) const noexcept {
    return (*this)(sum, sum, g);
  }

  /// The same into another list: to ← w g (+ sum); the last of several packs, into the wire's type.
  template <class T>
  LIMBER_HD T operator()(T& to, T const& sum, T& g) const noexcept {
    auto const w = static_cast<T>(weight);
    T const before = g;
    T const kept = carry ? sum : T(0);
    g = T(0);
    if (w == T(0)) {
      to = kept;
      return T(0);
    }
    to = carry ? math::fma(w, before, kept) : math::mul(w, before);
    return before;
  }
};

/// sum ← sum + x.
struct accumulate {
  template <class T>
  LIMBER_HD void operator()(T& sum, T const& x) const noexcept {
    sum = math::add(sum, x);
  }
};

/// d ← w (anchor − x), returned as well: what a model sends at a merge. With w = 0 d is 0.
struct difference {
  double weight = 1;
  template <class T>
  LIMBER_HD T operator()(T& d, T const& anchor, T const& x) const noexcept {
    auto const w = static_cast<T>(weight);
    d = w == T(0) ? T(0) : math::mul(w, math::sub(anchor, x));
    return d;
  }
};

/// d ← w x, returned as well; with w = 0 d is 0 whatever x is.
struct weighted {
  double weight = 1;
  template <class T>
  LIMBER_HD T operator()(T& d, T const& x) const noexcept {
    auto const w = static_cast<T>(weight);
    d = w == T(0) ? T(0) : math::mul(w, x);
    return d;
  }
};

/// to ← from − factor · d: the mean of models, from an anchor and the sum of differences.
struct step_back {
  double factor = 1;
  template <class T>
  LIMBER_HD void operator()(T& to, T const& from, T const& d) const noexcept {
    to = math::fma(static_cast<T>(-factor), d, from);
  }
};

}  // namespace limber

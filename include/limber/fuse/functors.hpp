// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The element-wise operations that strategies are made of: each is one pass of an executor.

#include <limber/core/config.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/math.hpp>

namespace limber {

/// A number in both arithmetic types, rounded where it is made: a kernel in float converts nothing.
///
///     auto const w = weight.as<T>();
struct scalar {
  float narrow;
  double wide;

  LIMBER_HD constexpr scalar(double x) noexcept : narrow(static_cast<float>(x)), wide(x) {}

  template <class T>
  [[nodiscard]] LIMBER_HD constexpr T as() const noexcept {
    if constexpr (sizeof(T) == sizeof(double))
      return wide;
    else
      return narrow;
  }
};

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
  scalar factor = 1;
  template <class T>
  LIMBER_HD void operator()(T& to, T const& from) const noexcept {
    to = math::mul(factor.as<T>(), from);
  }
};

/// Packs a gradient: sum ← w g (+ sum when `carry`), g ← 0, and returns g, for Σ g² in the same pass.
///
/// With w = 0 (by its bits: a subnormal weight counts) nothing of g is looked at: a worker without samples
/// may hold anything.
struct pack {
  scalar weight = 1;
  bool carry = false;  ///< the sum already holds something

  template <class T>
  LIMBER_HD T operator()(T& sum, T& g) const noexcept {
    return (*this)(sum, sum, g);
  }

  /// The same into another list: to ← w g (+ sum); the last of several packs, into the wire's type.
  template <class T>
  LIMBER_HD T operator()(T& to, T const& sum, T& g) const noexcept {
    auto const w = weight.as<T>();
    T const before = g;
    T const kept = carry ? sum : T(0);
    g = T(0);
    if (math::is_zero(w)) {
      to = kept;
      return T(0);
    }
    to = carry ? math::fma(w, before, kept) : math::mul(w, before);
    return before;
  }
};

/// x as it is after a journey in type `wire`: what a store rounds to and a load makes of it. A double never
/// travels in 16 bits.
template <class T>
[[nodiscard]] LIMBER_HD inline T cast_to(dtype wire, T x) noexcept {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (wire == dtype::bf16) return static_cast<float>(bf16(x));
    if (wire == dtype::f16) return static_cast<float>(f16(x));
  }
  return x;
}

/// The last pack of a round, with error feedback; returns g, for Σ g² in the same pass.
///
///     x = w g + (sum + e);   to ← cast(x);   owed ← x − cast(x), exactly;   g ← 0
///
/// `owed` holds the sum before when `carry`, and is only written otherwise; e is what was owed before, and
/// stays: whoever sends decides which of the two is true. With w = 0 nothing of g is looked at, but e is
/// sent. What overflows the wire makes x − cast(x) infinite.
struct pack_with_error {
  scalar weight = 1;
  bool carry = false;
  dtype wire = dtype::bf16;

  template <class T>
  LIMBER_HD T operator()(T& to, T& owed, T const& e, T& g) const noexcept {
    auto const w = weight.as<T>();
    T const before = g, base = carry ? math::add(owed, e) : e;
    g = T(0);
    if (math::is_zero(w)) {
      send(to, owed, base);
      return T(0);
    }
    send(to, owed, math::fma(w, before, base));
    return before;
  }

  /// The same where there is no gradient: x = sum + e.
  template <class T>
  LIMBER_HD void operator()(T& to, T& owed, T const& e) const noexcept {
    send(to, owed, carry ? math::add(owed, e) : e);
  }

 private:
  template <class T>
  LIMBER_HD void send(T& to, T& owed, T x) const noexcept {
    T const sent = cast_to(wire, x);
    to = sent;
    owed = math::sub(x, sent);
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
  scalar weight = 1;
  template <class T>
  LIMBER_HD T operator()(T& d, T const& anchor, T const& x) const noexcept {
    auto const w = weight.as<T>();
    d = math::is_zero(w) ? T(0) : math::mul(w, math::sub(anchor, x));
    return d;
  }
};

/// d ← w x, returned as well; with w = 0 d is 0 whatever x is.
struct weighted {
  scalar weight = 1;
  template <class T>
  LIMBER_HD T operator()(T& d, T const& x) const noexcept {
    auto const w = weight.as<T>();
    d = math::is_zero(w) ? T(0) : math::mul(w, x);
    return d;
  }
};

/// to ← from − factor · d: the mean of models, from an anchor and the sum of differences.
struct step_back {
  scalar minus_factor;

  LIMBER_HD constexpr explicit step_back(double factor = 1) noexcept : minus_factor(-factor) {}

  template <class T>
  LIMBER_HD void operator()(T& to, T const& from, T const& d) const noexcept {
    to = math::fma(minus_factor.as<T>(), d, from);
  }
};

/// to ← to + α (from − to): gossip, EASGD, a moving average of models.
///
///     fma(α, from − to, to)
///
/// With α = 0 nothing of from is looked at. With α = 1 `to` is from but for two roundings; `copy` is exact.
/// Two sides that blend each other by 1/2 may end up one rounding apart.
struct blend {
  scalar alpha = 0.5;
  template <class T>
  LIMBER_HD void operator()(T& to, T const& from) const noexcept {
    auto const a = alpha.as<T>();
    if (!math::is_zero(a)) to = math::lerp(to, from, a);
  }
};

}  // namespace limber

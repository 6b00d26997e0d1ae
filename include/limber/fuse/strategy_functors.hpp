// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Element-wise operations of single strategies: gossip, push-sum, elastic averaging, parameter servers.

#include <limber/fuse/functors.hpp>

namespace limber::sync {

/// to ← (to + from) / 2; the same bits whichever of the two is `to`.
struct half_and_half {
  template <class T>
  LIMBER_HD void operator()(T& to, T const& from) const noexcept {
    to = math::mul(T(0.5), math::add(to, from));
  }
};

/// to ← share · (x + (z − x / w)), returned as well: what an update made of x.
struct follow {
  scalar share, weight;

  template <class T>
  LIMBER_HD T operator()(T& to, T const& x, T const& z) const noexcept {
    to = math::mul(share.as<T>(), math::add(x, math::sub(z, math::div(x, weight.as<T>()))));
    return to;
  }
};

/// x ← kept + came; z ← x / w.
struct join_halves {
  scalar weight;

  template <class T>
  LIMBER_HD void operator()(T& x, T& z, T const& kept, T const& came) const noexcept {
    x = math::add(kept, came);
    z = math::div(x, weight.as<T>());
  }
};

/// z ← x / w.
struct ratio {
  scalar weight;

  template <class T>
  LIMBER_HD void operator()(T& z, T const& x) const noexcept {
    z = math::div(x, weight.as<T>());
  }
};

/// old ← x̃ and x̃ ← x̃ + α (x − x̃), where x is what `old` held; returns the new x̃.
struct pull_centre {
  scalar alpha;
  template <class T>
  LIMBER_HD T operator()(T& centre, T& old) const noexcept {
    auto const a = alpha.as<T>();
    T const x = old;
    old = centre;
    if (!math::is_zero(a)) centre = math::lerp(centre, x, a);
    return centre;
  }
};

/// sum ← sum + w x.
struct add_weighted {
  scalar weight;
  template <class T>
  LIMBER_HD void operator()(T& sum, T const& x) const noexcept {
    sum = math::fma(weight.as<T>(), x, sum);
  }
};

/// What the gradient would be at w, to first order, when it was taken at w_bak; returned as well.
///
///     to ← g + λ g⊙g⊙(w − w_bak)          g = unit · what was sent
///
/// Choices  the sign is + and the square is g's, not |g|: g⊙g stands for the Hessian's diagonal. Public ports
///          of the paper differ in both.
/// Paper    Zheng et al., Asynchronous Stochastic Gradient Descent with Delay Compensation, ICML 2017,
///          arXiv:1609.08326.
struct delay_compensation {
  scalar unit, lambda;

  template <class T>
  LIMBER_HD T operator()(T& to, T const& sent, T const& w, T const& w_bak) const noexcept {
    T const g = math::mul(unit.as<T>(), sent);
    to = math::fma(math::mul(lambda.as<T>(), math::mul(g, g)), math::sub(w, w_bak), g);
    return to;
  }
};

/// The same with λ/√(s + ε) for λ, s a moving mean of g⊙g that this gradient is already part of.
///
///     next ← 0.95 s + 0.05 g⊙g
///
/// Choices  one s for the gradients of all workers, as the server's algorithm in the paper has it; the
///          authors' code keeps one a worker. ε = 1e-7. An element whose square overflows leaves s as it is.
struct adaptive_delay_compensation {
  scalar unit, lambda, keep = 0.95, take = 0.05, eps = 1e-7;

  template <class T>
  LIMBER_HD T operator()(T& to, T const& sent, T const& w, T const& w_bak, T const& s,
                         T& next) const noexcept {
    T const g = math::mul(unit.as<T>(), sent), square = math::mul(g, g);
    T const mean = math::fma(keep.as<T>(), s, math::mul(take.as<T>(), square));
    next = math::finite(mean) ? mean : s;
    T const strength = math::div(lambda.as<T>(), math::sqrt(math::add(next, eps.as<T>())));
    to = math::fma(math::mul(strength, square), math::sub(w, w_bak), g);
    return to;
  }
};

}  // namespace limber::sync

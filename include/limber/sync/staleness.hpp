// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a server does about gradients that were taken at an older model, and what it writes down of them.

#include <limber/core/config.hpp>
#include <limber/core/math.hpp>
#include <limber/fuse/functors.hpp>

#include <vector>

namespace limber::sync {

/// How much a gradient weighs that is τ updates late.
enum class staleness_rule {
  none,     ///< as any other
  inverse,  ///< 1/max(1, τ)
};

/// The gradients that a server took, in the order in which they arrived.
struct server_log {
  struct entry {
    int worker = 0;
    i64 staleness = 0;  ///< τ, updates
    i64 samples = 0;
    i64 steps = 0;  ///< updates that the server had made when it arrived
  };
  std::vector<entry> entries;

  /// How many gradients were 0, 1, 2, … updates late.
  [[nodiscard]] std::vector<i64> histogram() const {
    std::vector<i64> out;
    for (auto const& e : entries) {
      auto const k = static_cast<std::size_t>(e.staleness);
      if (k >= out.size()) out.resize(k + 1);
      ++out[k];
    }
    return out;
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

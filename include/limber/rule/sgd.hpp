// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Stochastic gradient descent with momentum, in both of its forms.

#include <limber/core/math.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/statistics.hpp>

namespace limber {

/// Where the rate enters momentum. Alike while the rate is constant, different when it changes.
enum class momentum_form {
  outside,  ///< v ← μ v + g;    p ← p − η v     (PyTorch)
  inside,   ///< u ← μ u + η g;  p ← p − u       (Caffe, MXNet, Keras)
};

/// Gradient descent: plain, heavy ball or Nesterov.
///
///     g ← g + λ p                                          coupled decay, before momentum
///     outside    v ← μ v + (1 − δ) g                       p ← (1 − η λ) p − η d,  d = v or g + μ v
///     inside     u ← μ (η/η_prev) u + η (1 − δ) g          p ← (1 − η λ) p − d,    d = u or η g + μ u
///
/// The second d is Nesterov's; the factor 1 − η λ is there when decay is decoupled; η/η_prev is
/// Goyal's momentum correction. With it u = η v at every step, so that both forms are the same
/// algorithm for any sequence of rates.
///
/// Units    η in parameter units per gradient unit; λ per step, times η, in both kinds of decay.
/// State    one moment slot, v or u, zero before the first update; none when momentum is 0.
/// Errors   check() throws for a value out of range, and for an option without effect: `nesterov` or
///          `dampening` without momentum, both together.
/// Choices  Dampening δ is left out of the first update of a buffer (t = 1), as PyTorch does.
///          Inside form: η_prev is the rate of the same buffer's update before. If that was 0, u is 0
///          (and what v would have kept is lost): the factor is 1 then, as it is when η/η_prev is out
///          of the range of T. Without the correction a falling rate leaves a momentum that is too
///          large, by η_prev/η.
/// Paper    Sutskever et al., On the importance of initialization and momentum in deep learning,
///          ICML 2013; Goyal et al., Accurate, Large Minibatch SGD, arXiv:1706.02677, eq. 9 and 10.
struct sgd {
  static constexpr std::array slots{slot::moment};

  double momentum = 0;      ///< μ, in [0, 1)
  double weight_decay = 0;  ///< λ, ≥ 0
  bool nesterov = false;    ///< look ahead by one step of momentum
  double dampening = 0;     ///< δ, in [0, 1)
  bool decoupled = false;   ///< decay the parameter instead of adding to the gradient
  momentum_form form = momentum_form::outside;
  bool momentum_correction = true;  ///< inside form: follow changes of the rate

  template <class T>
  struct coefficients {
    T decay;     ///< λ of coupled decay
    T shrink;    ///< −η λ of decoupled decay
    T carry;     ///< weight of the buffer
    T take;      ///< weight of the gradient in the buffer
    T ahead;     ///< μ, for Nesterov
    T gradient;  ///< weight of the gradient in Nesterov's step
    T step;      ///< weight of the step, negative
    bool nesterov;
  };

  template <class T>
  [[nodiscard]] LIMBER_HD coefficients<T> at(update_facts f) const noexcept {
    bool const inside = form == momentum_form::inside;
    double const scale = inside ? f.rate : 1;
    double const damped = f.t == 1 ? 1 : 1 - dampening;
    return {static_cast<T>(decoupled ? 0 : weight_decay),
            static_cast<T>(decoupled ? -f.rate * weight_decay : 0),
            carried<T>(f),
            static_cast<T>(scale * damped),
            static_cast<T>(momentum),
            static_cast<T>(scale),
            static_cast<T>(inside ? -1 : -f.rate),
            nesterov};
  }

  /// The new parameter; v is updated in place.
  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g, T& v) noexcept {
    g = math::fma(c.decay, p, g);
    v = math::fma(c.carry, v, math::mul(c.take, g));
    T const d = c.nesterov ? math::fma(c.ahead, v, math::mul(c.gradient, g)) : v;
    return math::fma(c.shrink, p, math::fma(c.step, d, p));
  }

  /// Without momentum: the same, with a buffer that nobody keeps.
  template <class T>
  [[nodiscard]] static LIMBER_HD T update(coefficients<T> const& c, T p, T g) noexcept {
    T v = 0;
    return update(c, p, g, v);
  }

  [[nodiscard]] LIMBER_HD constexpr int slot_count() const noexcept { return momentum == 0 ? 0 : 1; }

  void check() const {
    detail::expects_fraction("sgd", "momentum", momentum);
    detail::expects_not_negative("sgd", "weight_decay", weight_decay);
    detail::expects_fraction("sgd", "dampening", dampening);
    expects(!nesterov || momentum > 0, "sgd: nesterov needs momentum > 0, got momentum ", momentum);
    expects(!nesterov || dampening == 0, "sgd: nesterov needs dampening 0, got dampening ", dampening);
    expects(dampening == 0 || momentum > 0, "sgd: dampening ", dampening,
            " has no effect without momentum, got momentum ", momentum);
  }

 private:
  template <class T>
  [[nodiscard]] LIMBER_HD T carried(update_facts f) const noexcept {
    if (form == momentum_form::outside || !momentum_correction || f.previous_rate == 0)
      return static_cast<T>(momentum);
    double const corrected = momentum * (f.rate / f.previous_rate);
    bool const in_range = (corrected < 0 ? -corrected : corrected) <= double{detail::largest_finite<T>};
    return static_cast<T>(in_range ? corrected : momentum);
  }
};

static_assert(update_rule<sgd>);

}  // namespace limber

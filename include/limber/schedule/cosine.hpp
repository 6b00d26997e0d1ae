// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Cosine decay, once or with restarts.

#include <limber/schedule/elapsed.hpp>

namespace limber {

namespace detail {
/// Half a cosine wave from 1 at x = 0 to 0 at x = 1.
[[nodiscard]] LIMBER_HD inline double half_wave(double x) noexcept {
  constexpr double pi = 3.14159265358979323846;
  return 0.5 * (1 + math::cos(pi * x));
}
}  // namespace detail

/// Falls from 1 to `to` along half a cosine wave, then stays there.
///
///     η(t) = to + (1 − to) (1 + cos(π min(1, t / T))) / 2
///
/// Choices  length 0: `to` at once.
/// Paper    Loshchilov and Hutter, SGDR, ICLR 2017, arXiv:1608.03983, eq. 5 without restarts.
/// @throws std::invalid_argument unless length ≥ 0 and finite, and to lies in [0, 1]
struct cosine {
  amount length;
  double to;  ///< the last rate, in [0, 1]

  explicit cosine(amount over, double end = 0) : length(over), to(end) {
    detail::expects_length("cosine", "length", over);
    detail::expects_0_to_1("cosine", "to", end);
  }

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return detail::between(to, 1, detail::half_wave(detail::fraction(p, length)));
  }
};

/// Cosine decay that starts again at 1 whenever it has reached its end.
///
///     η(t) = to + (1 − to) (1 + cos(π x)) / 2       x = (t − S_n) / (T mⁿ)
///     S_n = T (1 + m + … + mⁿ⁻¹) ≤ t < S_{n+1}      T = period, m = multiplier
///
/// Choices  no end; `lasting(length, cosine_restarts{…})` gives it one.
/// Paper    Loshchilov and Hutter, SGDR, ICLR 2017, arXiv:1608.03983.
/// @throws std::invalid_argument unless period > 0, multiplier ≥ 1 and to lies in [0, 1]
struct cosine_restarts {
  amount period = detail::not_given;  ///< T, length of the first cycle
  double multiplier = 1;              ///< m, each cycle is this many times as long as the one before
  double to = 0;                      ///< the lowest rate, in [0, 1]
  detail::checked valid = check();

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return detail::between(to, 1, detail::half_wave(in_cycle(p)));
  }

  template <class F>
  void each_amount(F f) const {
    f(period);
  }

 private:
  /// x of the formula, up to rounding, or NaN. Closed form, because the number of cycles has no useful bound.
  [[nodiscard]] LIMBER_HD double in_cycle(progress const& p) const noexcept {
    if (multiplier == 1) return detail::passed(p, period).rest / period.value;
    if (detail::unknown(p, period.in)) return p.in(period.in);
    double const q = detail::elapsed(p, period.in) / period.value, log_m = math::log(multiplier);
    // math::mul, so that no device fuses a product with the first sum inside log1p or expm1.
    double const grown = math::mul(q, multiplier - 1);
    // A start that rounding alone misses counts as reached: the rate there is 1, not `to`.
    double const n = math::floor(math::mul(math::log1p(grown) / log_m, 1 + 0x1p-50));
    double const log_length = math::mul(n, log_m);
    double const start = math::expm1(log_length) / (multiplier - 1);
    return detail::zero_to_one((q - start) / math::exp(log_length));
  }

  [[nodiscard]] detail::checked check() const {
    detail::expects_period("cosine_restarts", "period", period);
    expects(math::finite(multiplier) && multiplier >= 1,
            "cosine_restarts: multiplier must be finite and >= 1, got ", multiplier);
    detail::expects_0_to_1("cosine_restarts", "to", to);
    return {};
  }
};

}  // namespace limber

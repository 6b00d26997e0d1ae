// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Along cosine waves: decay, once or with restarts, and the one-cycle policy.

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
  detail::checked valid{detail::expects_length("cosine_restarts", "period", period, false),
                        detail::expects_at_least("cosine_restarts", "multiplier", multiplier, 1),
                        detail::expects_0_to_1("cosine_restarts", "to", to)};

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return detail::between(to, 1, detail::half_wave(in_cycle(p)));
  }

  void each_amount(auto f) const { f(period); }

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
    double const x = (q - start) / math::exp(log_length);
    return x > 0 ? (x < 1 ? x : 1) : 0;  // 0/0 means "not begun"
  }
};

/// Rises along a cosine wave from `from` to 1, then falls to `to`.
///
///     x = min(1, t / T)
///     η(t) = from + (1 − from) (1 − cos(π x / rise)) / 2               x < rise
///     η(t) = to + (1 − to) (1 + cos(π (x − rise) / (1 − rise))) / 2    otherwise
///
/// Choices  defaults as in torch.optim.lr_scheduler.OneCycleLR (peak/25, then peak/250,000), but the peak
///          is at rise · T and the end at T, not one step before each. Momentum is the rule's business.
///          Length 0: `to` at once.
/// Paper    Smith and Topin, Super-Convergence, arXiv:1708.07120.
/// @throws std::invalid_argument unless length ≥ 0 and finite, and from, to and rise lie in [0, 1]
struct one_cycle {
  amount length = detail::not_given;
  double rise = 0.3;   ///< part of the length that rises, in [0, 1]
  double from = 0.04;  ///< the first rate, in [0, 1]
  double to = 4e-6;    ///< the last rate, in [0, 1]
  detail::checked valid{detail::expects_length("one_cycle", "length", length),
                        detail::expects_0_to_1("one_cycle", "rise", rise),
                        detail::expects_0_to_1("one_cycle", "from", from),
                        detail::expects_0_to_1("one_cycle", "to", to)};

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    double const x = detail::fraction(p, length);
    if (!(x >= rise)) return detail::between(from, 1, detail::half_wave(1 - x / rise));
    return detail::between(to, 1, detail::half_wave(rise < 1 ? (x - rise) / (1 - rise) : 1));
  }
};

}  // namespace limber

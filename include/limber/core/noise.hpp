// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Gradient noise from norms that the step already computed.

#include <limber/core/config.hpp>
#include <limber/core/math.hpp>

namespace limber {

/// Running estimates of the per-sample gradient variance and of the squared mean gradient.
///
///     V̂ = (Σ bᵢ‖gᵢ‖² − B‖ḡ‖²) / (n − 1)        Ĝ = ‖ḡ‖² − V̂/B
///
/// with n contributions gᵢ (means over bᵢ samples), B = Σ bᵢ and ḡ = Σ (bᵢ/B) gᵢ. Both estimates are
/// unbiased for unequal bᵢ; both are smoothed before anyone takes their ratio, because the ratio of
/// single estimates is biased.
/// State    this POD; a plain mean while fewer than 1/(1 − θ) updates were seen, then an
///          exponential mean with θ.
/// Choices  one contribution says nothing about its variance: with n = 1 nothing is updated.
struct noise_statistics {
  double variance = 0;  ///< smoothed V̂: trace of the per-sample covariance
  double square = 0;    ///< smoothed Ĝ: squared norm of the true gradient
  i64 count = 0;        ///< estimates folded in

  /// Folds in one step. @param theta smoothing, in [0, 1)
  LIMBER_HD void update(double contributions, double batch, double sum_weighted_squares, double mean_square,
                        double theta = 0.999) noexcept {
    if (!(contributions > 1) || !(batch > 0)) return;
    double const v = math::sub(sum_weighted_squares, math::mul(batch, mean_square)) / (contributions - 1);
    double const g = mean_square - v / batch;
    if (!math::finite(v) || !math::finite(g)) return;
    ++count;
    double const keep = math::min(theta, 1 - 1 / static_cast<double>(count));
    variance = math::add(math::mul(keep, variance), math::mul(1 - keep, v));
    square = math::add(math::mul(keep, square), math::mul(1 - keep, g));
  }

  /// AdaScale's gain r of batch B over batch B₀: in [1, B/B₀], 1 while nothing is known.
  ///
  ///     r = (V/B₀ + G) / (V/B + G)
  ///
  /// Paper    Johnson et al., AdaScale SGD, ICML 2020, arXiv:2007.05105, with per-sample variance so
  ///          that batches need not be multiples of B₀.
  [[nodiscard]] LIMBER_HD double gain(double batch, double base_batch) const noexcept {
    if (count == 0 || !(batch > base_batch)) return 1;
    double const v = math::max(variance, 1e-12), g = math::max(square, 0.0);
    return (v / base_batch + g) / (v / batch + g);
  }
};

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The global batch that learns most per second, from given costs and measured noise.

#include <limber/batch/fixed.hpp>
#include <limber/batch/noise_scale.hpp>
#include <limber/batch/plan.hpp>
#include <limber/batch/replan.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace limber {

/// The batch with the largest goodput: samples per second times what a sample is worth.
///
///     goodput(B) = B / T(B) · E(B)
///     E(B)       = (φ + B₀) / (φ + B)                        statistical efficiency, 1 at B₀
///     T(B)       = (T_grad^γ + T_sync^γ)^(1/γ)               seconds per update
///     T_grad     = α_grad + β_grad ⌈B / n⌉                   the largest share decides
///     T_sync     = 0 for n = 1, else α_sync + β_sync (n − 2)
///
/// φ = V / G is the simple noise scale in samples. γ = 1 adds computing and communication, γ → ∞ overlaps
/// them. The maximum is taken over a geometric grid, the smallest of equals:
///
///     Bₖ = B_low (B_high / B_low)^(k / (m − 1)), k = 0 … m − 1, to the nearest sample
///     B_low = max(B₀, n)      B_high = min(B_max, n · max_share)
///
/// Units    seconds and samples; α and β as somebody measured or fitted them: nothing is fitted here.
/// State    none. B_low while fewer than `min_estimates` of the noise were folded in; φ = ∞ (no gradient
/// stands out) makes E = 1. Cost     m evaluations. Choices  No gradient accumulation (the paper's s = 0),
/// one T_sync for all places: give the α and β of the
///          slowest link. Equal shares. The rate has to follow the batch by AdaScale (`adascale`), as there.
///          `std::pow` may differ by a rounding between mathematical libraries: use one on all ranks.
/// Paper    Qiao et al., Pollux: Co-adaptive Cluster Scheduling for Goodput-Optimized Deep Learning,
///          OSDI 2021, arXiv:2008.12260.
struct goodput {
  i64 base_batch = 0;                               ///< B₀, the batch whose training is the measure, ≥ 1
  i64 max_batch = 0;                                ///< B_max, in [B₀, 2⁵³]
  double alpha_grad = 0;                            ///< seconds of an update whatever its size, ≥ 0
  double beta_grad = 0;                             ///< seconds per sample of a share, > 0
  double alpha_sync = 0;                            ///< seconds of a synchronisation of two workers, ≥ 0
  double beta_sync = 0;                             ///< seconds more for each further worker, ≥ 0
  double gamma = 1;                                 ///< overlap, in [1, 10]
  int candidates = 50;                              ///< m, sizes on the grid, in [2, 10,000]
  i64 max_share = std::numeric_limits<i64>::max();  ///< largest share of a rank (its memory), ≥ 1
  i64 min_estimates = 10;                           ///< estimates of the noise to wait for
  amount replan_every = epochs(1);                  ///< when to look again

  /// @throws std::invalid_argument if there are no workers, a member is out of range, or no batch is left
  ///         between the bounds
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const {
    i64 const world = detail::world_of("goodput", facts);
    check();
    i64 const low = std::max(base_batch, world);
    i64 const high = max_share > max_batch / world ? max_batch : max_share * world;
    expects(low <= high, "goodput: no batch lies between ", low, " (base_batch ", base_batch, ", ", world,
            " workers) and ", high, " (max_batch ", max_batch, ", max_share ", max_share, ")");
    if (facts.now.noise.count < std::max(min_estimates, i64{1})) return fixed{low}(facts);
    double const phi = simple_noise_scale(facts.now.noise);
    i64 best = low;
    for (int k = 1; k < candidates; ++k)
      if (i64 const b = on_grid(k, low, high); at(b, facts.world, phi) > at(best, facts.world, phi)) best = b;
    return fixed{best}(facts);
  }

  /// Goodput of a batch in samples of B₀'s worth per second. @pre batch ≥ 1, world ≥ 1, phi ≥ 0
  [[nodiscard]] double at(i64 batch, int world, double phi) const {
    return static_cast<double>(batch) / step_seconds(batch, world) * efficiency(batch, phi);
  }

  /// E(B). @pre batch ≥ 1, phi ≥ 0
  [[nodiscard]] double efficiency(i64 batch, double phi) const {
    if (!math::finite(phi)) return 1;
    return (phi + static_cast<double>(base_batch)) / (phi + static_cast<double>(batch));
  }

  /// T(B). @pre batch ≥ 1, world ≥ 1
  [[nodiscard]] double step_seconds(i64 batch, int world) const {
    auto const largest = static_cast<double>((batch - 1) / world + 1);
    double const grad = math::fma(beta_grad, largest, alpha_grad);
    double const sync = world == 1 ? 0 : math::fma(beta_sync, static_cast<double>(world - 2), alpha_sync);
    // The larger is taken out, so that no power overflows.
    double const longer = std::max(grad, sync), shorter = std::min(grad, sync);
    return longer * std::pow(1 + std::pow(shorter / longer, gamma), 1 / gamma);
  }

 private:
  [[nodiscard]] i64 on_grid(int k, i64 low, i64 high) const {
    if (k == candidates - 1) return high;
    double const from = static_cast<double>(low), ratio = static_cast<double>(high) / from;
    double const b = from * std::pow(ratio, static_cast<double>(k) / (candidates - 1));
    return std::clamp(static_cast<i64>(std::floor(b + 0.5)), low, high);
  }

  void check() const {
    expects(base_batch >= 1, "goodput: base_batch must be at least 1, got ", base_batch);
    expects(max_batch >= base_batch && max_batch <= i64{1} << 53, "goodput: max_batch must lie in [",
            base_batch, ", 2^53], got ", max_batch);
    expects(max_share >= 1, "goodput: max_share must be at least 1, got ", max_share);
    expects(min_estimates >= 0, "goodput: min_estimates must not be negative, got ", min_estimates);
    at_least_0("alpha_grad", alpha_grad);
    expects(math::finite(beta_grad) && beta_grad > 0, "goodput: beta_grad must be finite and > 0, got ",
            beta_grad);
    at_least_0("alpha_sync", alpha_sync);
    at_least_0("beta_sync", beta_sync);
    expects(gamma >= 1 && gamma <= 10, "goodput: gamma must lie in [1, 10], got ", gamma);
    expects(candidates >= 2 && candidates <= 10000, "goodput: candidates must lie in [2, 10000], got ",
            candidates);
  }

  static void at_least_0(char const* argument, double x) {
    expects(math::finite(x) && x >= 0, "goodput: ", argument, " must be finite and >= 0, got ", x);
  }
};

static_assert(batch_policy<goodput> && replans<goodput>);

}  // namespace limber

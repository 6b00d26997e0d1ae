// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Dividing a whole number in proportion to weights, with a smallest and a largest share.

#include <limber/batch/apportion.hpp>
#include <limber/core/config.hpp>
#include <limber/core/math.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace limber::detail {

/// One call of `apportion_within`.
class bounded_apportionment {
 public:
  bounded_apportionment(i64 total, std::span<double const> weights, i64 low, std::span<i64 const> high)
      : total_(total), weight_(weights), low_(low), high_(high) {}

  [[nodiscard]] std::vector<i64> operator()() const {
    std::vector<i64> share = apportion(total_, weight_);
    if (!fits(share)) redistribute(share);
    return share;
  }

 private:
  // The levels at which rank i leaves its smallest share, and at which it meets its largest.
  [[nodiscard]] double leaves(std::size_t i) const { return static_cast<double>(low_) / weight_[i]; }
  [[nodiscard]] double meets(std::size_t i) const { return static_cast<double>(high_[i]) / weight_[i]; }

  [[nodiscard]] bool fits(std::span<i64 const> share) const {
    for (std::size_t i = 0; i < share.size(); ++i)
      if (share[i] < low_ || share[i] > high_[i]) return false;
    return true;
  }

  // Rank i gets level · wᵢ, but at least `low` and at most highᵢ: is that the total at most?
  [[nodiscard]] bool within_total(double level) const {
    i64 bound = 0;    // dealt to ranks at a bound; stops above the total
    double free = 0;  // dealt to the others
    for (std::size_t i = 0; i < weight_.size() && bound <= total_; ++i) {
      if (level >= meets(i)) {
        bound += high_[i];
      } else if (level <= leaves(i)) {
        bound += low_;
      } else {
        free = math::fma(level, weight_[i], free);
      }
    }
    return bound <= total_ && free <= static_cast<double>(total_ - bound);
  }

  // The last level, among those at which a rank comes to or leaves a bound, that deals at most the total.
  [[nodiscard]] double level() const {
    std::vector<double> at;
    at.reserve(2 * weight_.size());
    for (std::size_t i = 0; i < weight_.size(); ++i) {
      at.push_back(leaves(i));
      at.push_back(meets(i));
    }
    std::sort(at.begin(), at.end());
    auto const above = std::partition_point(at.begin(), at.end(), [&](double x) { return within_total(x); });
    return above == at.begin() ? at.front() : *(above - 1);
  }

  void redistribute(std::vector<i64>& share) const {
    double const reached = level();
    std::vector<std::size_t> rank;
    std::vector<double> weight;
    i64 left = total_;
    for (std::size_t i = 0; i < share.size(); ++i) {
      bool const full = reached >= meets(i), free = !full && reached >= leaves(i);
      share[i] = full ? high_[i] : low_;
      if (free) {
        rank.push_back(i);
        weight.push_back(weight_[i]);
      } else {
        left -= share[i];
      }
    }
    if (!rank.empty()) {
      std::vector<i64> const dealt = apportion(left, weight);
      for (std::size_t j = 0; j < rank.size(); ++j)
        share[rank[j]] = std::clamp(dealt[j], low_, high_[rank[j]]);
    }
    settle(share);
  }

  // Quotas are rounded: where one rounds across a bound, a few samples are left or too many.
  void settle(std::vector<i64>& share) const {
    i64 left = total_;
    for (i64 const s : share) left -= s;
    for (std::size_t i = 0; i < share.size() && left != 0; ++i) {
      i64 const change = std::clamp(left, low_ - share[i], high_[i] - share[i]);
      share[i] += change;
      left -= change;
    }
  }

  i64 total_;
  std::span<double const> weight_;
  i64 low_;
  std::span<i64 const> high_;
};

/// Divides `total` in proportion to `weights`, every share in [low, highᵢ].
///
///     sᵢ = clamp(λ wᵢ, low, highᵢ), with the level λ at which Σ sᵢ = total; the ranks between their bounds
///     are rounded by largest remainders
///
/// Where plain largest remainders fit the bounds, they are the answer.
/// Cost     O(n log n): 2n levels are sorted and searched by halves.
/// @pre weights > 0, n · low ≤ total ≤ Σ high, total ≤ 2⁵³, 0 ≤ low ≤ highᵢ ≤ total
[[nodiscard]] inline std::vector<i64> apportion_within(i64 total, std::span<double const> weights, i64 low,
                                                       std::span<i64 const> high) {
  return bounded_apportionment(total, weights, low, high)();
}

}  // namespace limber::detail

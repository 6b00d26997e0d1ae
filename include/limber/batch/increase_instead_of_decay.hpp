// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A batch that grows where the rate would decay.

#include <limber/batch/fixed.hpp>
#include <limber/batch/plan.hpp>

#include <concepts>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace limber {

/// A policy with one size, `batch`, that another policy may set.
template <class P>
concept sized_policy = batch_policy<P> && requires(P& policy, i64 size) {
  { policy.batch } -> std::same_as<i64&>;
  policy.batch = size;
};

/// The batch is multiplied at each milestone, in the place of the rate's decay by 1 / factor.
///
///     k = #{i : milestoneᵢ ≤ t}      b(t) = min(b₀ fᵏ, b_max), to the nearest sample
///
/// For SGD the noise scale is g ≈ ε N / B, so B → f B does to it what ε → ε / f does, with fewer updates.
/// The update at a milestone already has the larger batch, as with `multi_step`.
///
/// Units    b in the unit of the base policy's `batch`: over all workers for `fixed` and `dbs`, per worker
///          for `per_worker`. Milestones in epochs or samples are where the rate would decay; in steps they
///          come later, as later steps hold more samples.
/// Choices  The paper's remark that B must stay far below N (about N / 10) is `max_batch`: once it is
///          reached the rate has to decay by what is left, `rate_factor`.
///          The rate must not follow the batch (`scales_batch_with_schedule`): η ∝ B would undo the decay.
/// Paper    Smith, Kindermans, Ying and Le, Don't Decay the Learning Rate, Increase the Batch Size,
///          ICLR 2018, arXiv:1711.00489.
template <sized_policy P>
struct increase_instead_of_decay {
  static constexpr bool scales_batch_with_schedule = true;

  P base;                          ///< the policy whose `batch` grows; its b₀ is the first
  std::vector<amount> milestones;  ///< increasing, of one unit
  double factor;                   ///< f > 1
  i64 max_batch;                   ///< b_max ≥ b₀

  /// @throws std::invalid_argument if there are no milestones, they are not > 0, do not increase or differ
  ///         in unit, factor is not finite and > 1, or max_batch is smaller than the first batch
  increase_instead_of_decay(P first, std::vector<amount> at, double by,
                            i64 most = std::numeric_limits<i64>::max())
      : base(std::move(first)), milestones(std::move(at)), factor(by), max_batch(most) {
    char const* const name = "increase_instead_of_decay: ";
    expects(base.batch >= 1, name, "batch must be at least 1, got ", base.batch);
    expects(!milestones.empty(), name, "there are no milestones");
    expects(math::finite(factor) && factor > 1, name, "factor must be finite and > 1, got ", factor);
    expects(max_batch >= base.batch, name, "max_batch ", max_batch, " is smaller than batch ", base.batch);
    amount before{0, milestones[0].in};
    for (amount const a : milestones) {
      expects(a.in == before.in, name, "milestones must share one unit, got ", name_of(before.in), " and ",
              name_of(a.in));
      expects(math::finite(a.value) && a.value > before.value, name,
              "milestones must be finite, > 0 and increase, got ", a.value, " after ", before.value);
      before = a;
    }
  }

  increase_instead_of_decay(i64 batch, std::vector<amount> at, double by,
                            i64 most = std::numeric_limits<i64>::max()) requires std::same_as<P, fixed>
      : increase_instead_of_decay(fixed{batch}, std::move(at), by, most) {}

  /// @throws std::invalid_argument if the batch exceeds 2⁵³, and what the base policy throws
  [[nodiscard]] batch_plan operator()(batch_facts const& facts) const {
    P sized = base;
    sized.batch = batch_at(facts.now);
    return sized(facts);
  }

  /// b(t). @throws std::invalid_argument if it exceeds 2⁵³
  [[nodiscard]] i64 batch_at(progress const& now) const {
    double const sized = math::min(wanted_at(now), static_cast<double>(max_batch));
    expects(sized <= 0x1p53, "increase_instead_of_decay: batch ", base.batch, " x ", factor, "^", passed(now),
            " exceeds 2^53; set max_batch");
    return static_cast<i64>(math::add(sized, 0.5));
  }

  /// What the rate still has to be multiplied by: 1 until `max_batch` is reached, then b_max / (b₀ fᵏ).
  [[nodiscard]] double rate_factor(progress const& now) const {
    return math::min(1.0, static_cast<double>(max_batch) / wanted_at(now));
  }

  /// True where a milestone was passed, and where the base policy wants to be asked.
  [[nodiscard]] bool due(progress const& then, progress const& now) const {
    return passed(then) != passed(now) || is_due(base, then, now);
  }

  /// Its milestones; and the base policy's own.
  template <class F>
  void each_amount(F f) const {
    for (amount const a : milestones) f(a);
    if constexpr (measures_progress<P>) base.each_amount(f);
    if constexpr (replans_periodically<P>) f(static_cast<amount>(base.replan_every));
  }

 private:
  [[nodiscard]] std::size_t passed(progress const& now) const {
    std::size_t k = 0;
    for (; k < milestones.size(); ++k) {
      detail::expects_known("increase_instead_of_decay", milestones[k].in, now);
      if (now.in(milestones[k].in) < milestones[k].value) break;
    }
    return k;
  }

  [[nodiscard]] double wanted_at(progress const& now) const {
    double wanted = static_cast<double>(base.batch);
    for (std::size_t k = passed(now); k > 0; --k) wanted = math::mul(wanted, factor);
    return wanted;
  }
};

increase_instead_of_decay(i64, std::vector<amount>, double, i64 = 0)->increase_instead_of_decay<fixed>;

}  // namespace limber

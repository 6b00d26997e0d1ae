// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a batch policy is: facts in, planned sizes out; and when it wants to be asked again.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/progress.hpp>
#include <limber/core/units.hpp>

#include <concepts>
#include <string_view>
#include <vector>

namespace limber {

struct batch_plan;

/// What the optimizer gathered before it asks a policy. All ranks hold the same bits.
///
/// Units    seconds[i] is what rank i computed for its share of one update, the mean since the last plan,
///          without any waiting: with the waiting inside, all ranks look alike and nothing can be learnt.
///          0 = not measured (no samples, or a rank that has just come).
/// Shapes   seconds has one entry a rank, or none before anything was measured.
struct batch_facts {
  int world = 1;                        ///< workers, ≥ 1
  limber::progress now{};               ///< where training stands
  std::vector<double> seconds{};        ///< pure compute time of each rank's share of an update
  batch_plan const* current = nullptr;  ///< the plan in force, null at the start; not owned
};

/// Planned sizes of the updates to come, until the next plan.
///
/// Units    samples. What a step really counted may be less (the last step of an epoch); that only
///          weighs gradients, it never changes the plan.
struct batch_plan {
  i64 total = 0;             ///< planned global batch, B
  std::vector<i64> share{};  ///< planned samples of each rank per update, Σ = total
  i64 shards = 0;            ///< logical shards that an update consists of, 0 = none
  i64 calls_per_update = 1;  ///< calls of step() that one update takes

  /// Samples/s of each rank as the policy believes, 0 = never measured; empty if the policy does not
  /// measure. All memory that a policy has of the past.
  std::vector<double> speed{};

  friend bool operator==(batch_plan const&, batch_plan const&) = default;
};

/// Decides the global batch and every rank's share of it.
///
/// A pure function: no clock, no communication, no state outside facts and plan. Every rank calls it with
/// equal facts and so gets an equal plan.
template <class P>
concept batch_policy = std::copy_constructible<P> && requires(P const& policy, batch_facts const& facts) {
  { policy(facts) } -> std::same_as<batch_plan>;
};

/// True for policies whose batch already stands in for the rate's decay. A rate that grows with the batch
/// (linear, square root, Dynamic SGD, AdaScale) takes that decay back: refuse the pair. Your own policy says
/// it by a member, `static constexpr bool scales_batch_with_schedule = true`.
template <class P>
inline constexpr bool scales_batch_with_schedule = requires {
  requires P::scales_batch_with_schedule;
};

namespace detail {

/// The number of workers, checked. @throws std::invalid_argument
[[nodiscard]] i64 world_of(std::string_view policy, batch_facts const& facts);
/// a · b for positive a and b. @throws std::invalid_argument if it does not fit 64 bits
[[nodiscard]] i64 checked_product(std::string_view policy, i64 a, i64 b);
/// @throws std::invalid_argument if `in` is epochs, of a size that is not known
void expects_known(std::string_view what, unit in, progress const& now);

}  // namespace detail

/// A policy that wants to be asked again after every `replan_every`.
template <class P>
concept replans_periodically = batch_policy<P> && requires(P const& policy) {
  { policy.replan_every } -> std::convertible_to<amount>;
};

/// A policy that says itself between which two points of progress it wants to be asked again.
template <class P>
concept replans_at_will = batch_policy<P> && requires(P const& policy, progress const& p) {
  { policy.due(p, p) } -> std::convertible_to<bool>;
};

/// A policy whose plan may change while the workers stay the same. Others are asked at a resize only.
template <class P>
concept replans = replans_periodically<P> || replans_at_will<P>;

/// A policy that measures progress by amounts of its own, beside `replan_every`: each_amount(f) calls
/// f(amount) for every one.
template <class P>
concept measures_progress = batch_policy<P> && requires(P const& policy, void (*f)(amount)) {
  policy.each_amount(f);
};

/// True if `policy` measures progress in epochs: their size must be known then. What a lambda measures by
/// cannot be seen.
template <batch_policy P>
[[nodiscard]] bool counts_epochs(P const& policy) {
  bool found = false;
  if constexpr (measures_progress<P>)
    policy.each_amount([&found](amount a) { found = found || a.in == unit::epochs; });
  if constexpr (replans_periodically<P>)
    found = found || static_cast<amount>(policy.replan_every).in == unit::epochs;
  return found;
}

/// True if a multiple of `every` lies in (then, now].
///
///     ⌊now / every⌋ > ⌊then / every⌋
///
/// Units    those of `every`; epochs are samples / epoch_size.
/// Choices  multiples of the period since the start of training, not since the last plan: a resume or a
///          resize in between moves no boundary. In fractions of an epoch a boundary that rounding misses
///          is seen one update later.
/// @throws std::invalid_argument unless every > 0 and finite, and the size of an epoch is known if it counts
[[nodiscard]] bool is_due(amount every, progress const& then, progress const& now);

/// True if `policy` wants to be asked at `now`, having been considered last at `then`.
///
/// Cost     no allocation: it may be called after each update.
/// @throws std::invalid_argument unless the policy's period is > 0 and finite
template <batch_policy P>
[[nodiscard]] bool is_due(P const& policy, progress const& then, progress const& now) {
  if constexpr (replans_at_will<P>) {
    return policy.due(then, now);
  } else if constexpr (replans_periodically<P>) {
    return is_due(static_cast<amount>(policy.replan_every), then, now);
  } else {
    return false;
  }
}

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/batch/impl/plan.ipp>
#endif

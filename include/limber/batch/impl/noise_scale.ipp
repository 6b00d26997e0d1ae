// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/dbs.hpp>
#include <limber/batch/fixed.hpp>
#include <limber/batch/noise_scale.hpp>

#include <algorithm>

namespace limber {

LIMBER_FN batch_plan noise_scale::operator()(batch_facts const& facts) const {
  i64 const world = detail::world_of("noise_scale", facts);
  expects(min_batch >= world, "noise_scale: min_batch ", min_batch, " is smaller than ", world, " workers");
  expects(max_batch >= min_batch && max_batch <= i64{1} << 53, "noise_scale: max_batch must lie in [",
          min_batch, ", 2^53], got ", max_batch);
  expects(math::finite(step) && step >= 1.01, "noise_scale: step must be finite and >= 1.01, got ", step);
  expects(math::finite(growth) && growth >= step, "noise_scale: growth must be finite and >= step ", step,
          ", got ", growth);
  expects(min_estimates >= 0, "noise_scale: min_estimates must not be negative, got ", min_estimates);
  expects(smoothing >= 0 && smoothing < 1, "noise_scale: smoothing must lie in [0, 1), got ", smoothing);
  i64 const total = batch_at(facts);
  return share == sharing::equal ? fixed{total}(facts)
                                 : dbs{.batch = total, .smoothing = smoothing, .caps = {}}(facts);
}

LIMBER_FN i64 noise_scale::batch_at(batch_facts const& facts) const {
  i64 const now = facts.current == nullptr ? min_batch : facts.current->total;
  i64 const kept = std::clamp(now, min_batch, max_batch);
  if (facts.now.noise.count < std::max(min_estimates, i64{1})) return kept;
  double const wanted = std::clamp(simple_noise_scale(facts.now.noise), static_cast<double>(min_batch),
                                   static_cast<double>(max_batch));
  auto const size = static_cast<double>(kept);
  // The ends of the range are sizes that B may always go to: beyond them no noise is seen.
  bool const at_the_end =
      wanted == static_cast<double>(min_batch) || wanted == static_cast<double>(max_batch);
  if (wanted <= size * step && wanted >= size / step && !at_the_end) return kept;
  // The half: sizes are rounded, and one that was rounded down must not hold the next one back.
  return nearest(wanted, growth * (size + 0.5));
}

LIMBER_FN i64 noise_scale::nearest(double wanted, double most) const {
  auto const top = static_cast<double>(max_batch);
  double level = static_cast<double>(min_batch);
  while (level < top) {
    double const next = std::min(level * step, top);
    if (next > most || wanted / level < next / wanted) break;
    level = next;
  }
  return std::clamp(static_cast<i64>(math::add(level, 0.5)), min_batch, max_batch);
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/batch/dbs.hpp>
#include <limber/batch/fixed.hpp>
#include <limber/batch/goodput.hpp>
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
  i64 const now = facts.current == nullptr ? min_batch : facts.current->total;
  i64 total = std::clamp(now, min_batch, max_batch);
  if (facts.now.noise.count >= std::max(min_estimates, i64{1})) {
    auto const least = static_cast<double>(min_batch), top = static_cast<double>(max_batch);
    double const wanted = std::clamp(simple_noise_scale(facts.now.noise), least, top);
    auto const size = static_cast<double>(total);
    // The ends of the range are sizes that B may always go to: beyond them no noise is seen.
    if (wanted > size * step || wanted < size / step || wanted == least || wanted == top) {
      // The half: sizes are rounded, and one that was rounded down must not hold the next one back.
      double const most = growth * (size + 0.5);
      // The size nearest to `wanted` by ratio, by products alone, no logarithms: the same on every machine.
      double level = least;
      for (double next; level < top; level = next) {
        next = std::min(level * step, top);
        if (next > most || wanted / level < next / wanted) break;
      }
      total = std::clamp(static_cast<i64>(math::add(level, 0.5)), min_batch, max_batch);
    }
  }
  return share == sharing::equal ? fixed{total}(facts)
                                 : dbs{.batch = total, .smoothing = smoothing, .caps = {}}(facts);
}

LIMBER_FN batch_plan goodput::operator()(batch_facts const& facts) const {
  i64 const world = detail::world_of("goodput", facts);
  expects(base_batch >= 1, "goodput: base_batch must be at least 1, got ", base_batch);
  expects(max_batch >= base_batch && max_batch <= i64{1} << 53, "goodput: max_batch must lie in [",
          base_batch, ", 2^53], got ", max_batch);
  expects(max_share >= 1, "goodput: max_share must be at least 1, got ", max_share);
  expects(min_estimates >= 0, "goodput: min_estimates must not be negative, got ", min_estimates);
  auto const at_least_0 = [](char const* argument, double x) {
    expects(math::finite(x) && x >= 0, "goodput: ", argument, " must be finite and >= 0, got ", x);
  };
  at_least_0("alpha_grad", alpha_grad);
  expects(math::finite(beta_grad) && beta_grad > 0, "goodput: beta_grad must be finite and > 0, got ",
          beta_grad);
  at_least_0("alpha_sync", alpha_sync);
  at_least_0("beta_sync", beta_sync);
  expects(gamma >= 1 && gamma <= 10, "goodput: gamma must lie in [1, 10], got ", gamma);
  expects(candidates >= 2 && candidates <= 10000, "goodput: candidates must lie in [2, 10000], got ",
          candidates);
  i64 const low = std::max(base_batch, world);
  i64 const high = max_share > max_batch / world ? max_batch : max_share * world;
  expects(low <= high, "goodput: no batch lies between ", low, " (base_batch ", base_batch, ", ", world,
          " workers) and ", high, " (max_batch ", max_batch, ", max_share ", max_share, ")");
  if (facts.now.noise.count < std::max(min_estimates, i64{1})) return fixed{low}(facts);
  double const phi = simple_noise_scale(facts.now.noise);
  auto const on_grid = [&](int k) {
    if (k == candidates - 1) return high;
    double const from = static_cast<double>(low), ratio = static_cast<double>(high) / from;
    double const b = from * math::pow(ratio, static_cast<double>(k) / (candidates - 1));
    return std::clamp(static_cast<i64>(math::floor(b + 0.5)), low, high);
  };
  i64 best = low;
  for (int k = 1; k < candidates; ++k)
    if (i64 const b = on_grid(k); at(b, facts.world, phi) > at(best, facts.world, phi)) best = b;
  return fixed{best}(facts);
}

LIMBER_FN double goodput::at(i64 batch, int world, double phi) const {
  return static_cast<double>(batch) / step_seconds(batch, world) * efficiency(batch, phi);
}

LIMBER_FN double goodput::efficiency(i64 batch, double phi) const {
  if (!math::finite(phi)) return 1;
  return (phi + static_cast<double>(base_batch)) / (phi + static_cast<double>(batch));
}

LIMBER_FN double goodput::step_seconds(i64 batch, int world) const {
  auto const largest = static_cast<double>((batch - 1) / world + 1);
  double const grad = math::fma(beta_grad, largest, alpha_grad);
  double const sync = world == 1 ? 0 : math::fma(beta_sync, static_cast<double>(world - 2), alpha_sync);
  // The larger is taken out, so that no power overflows.
  double const longer = std::max(grad, sync), shorter = std::min(grad, sync);
  return longer * math::pow(1 + math::pow(shorter / longer, gamma), 1 / gamma);
}

}  // namespace limber

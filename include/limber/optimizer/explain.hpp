// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What training will do, in words and numbers, before it does it.

#include <limber/core/progress.hpp>
#include <limber/core/units.hpp>
#include <limber/fuse/bucket_plan.hpp>

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace limber {

/// Facts that `explain` prints; gathered by the optimizer.
struct training_plan {
  int rank = 0, world = 1;
  i64 tensors = 0, elements = 0, value_bytes = 0, gradient_bytes = 0, slot_bytes = 0, strategy_bytes = 0;
  double planned_batch = 0;
  i64 share = 0;
  struct crossing {
    std::string what;  ///< "gradients", "models"
    std::string when;  ///< "every call", "every 16 calls"
    bucket_plan const* plan;
  };
  std::vector<crossing> crossings;
  amount horizon{};
  std::function<double(progress const&)> rate;
  progress now{};
};

namespace detail {

/// 1536 → "1.5 kB".
[[nodiscard]] inline std::string bytes_text(i64 bytes) {
  char const* const units[] = {"B", "kB", "MB", "GB", "TB"};
  auto x = static_cast<double>(bytes);
  int u = 0;
  for (; x >= 1000 && u < 4; ++u) x /= 1000;
  char out[32];
  std::snprintf(out, sizeof out, u == 0 ? "%.0f %s" : "%.1f %s", x, units[u]);
  return out;
}

// What a site and its strategy know of it.
template <class Site, class State>
[[nodiscard]] training_plan plan_of(Site const& at, State& strategy) {
  training_plan p;
  p.rank = at.comm->rank();
  p.world = at.comm->size();
  p.tensors = static_cast<i64>(at.inner.values().size());
  p.elements = at.inner.elements();
  for (auto const& v : at.inner.values()) p.value_bytes += v.bytes();
  for (auto const& g : at.gradients) p.gradient_bytes += g.bytes();
  p.slot_bytes = at.inner.slot_bytes();
  p.strategy_bytes = strategy.bytes();
  strategy.crossings([&](std::string what, i64 period, bucket_plan const& plan) {
    p.crossings.push_back(
        {std::move(what), period == 1 ? "every call" : text("every ", period, " calls"), &plan});
  });
  p.now = at.now;
  return p;
}

}  // namespace detail

/// The text that optimizer::explain returns.
[[nodiscard]] inline std::string explain(training_plan const& p) {
  std::string out = text("limber: rank ", p.rank, " of ", p.world, ", ", p.tensors, " tensors, ", p.elements,
                         " parameters\n");
  out += text("  batch     ", p.planned_batch, " samples an update, ", p.share, " of them here\n");
  out += text("  memory    parameters ", detail::bytes_text(p.value_bytes), ", gradients ",
              detail::bytes_text(p.gradient_bytes), ", rule state ", detail::bytes_text(p.slot_bytes),
              ", strategy ", detail::bytes_text(p.strategy_bytes), "\n");
  // Read the gradient for its norm; then read and write parameters and slots, and read the gradient.
  i64 const pass = 2 * p.gradient_bytes + 2 * p.value_bytes + 2 * p.slot_bytes;
  out += text("  an update moves ", detail::bytes_text(pass),
              " in 2 passes (norm and finite test; everything else)\n");
  for (auto const& c : p.crossings) {
    i64 bytes = 0;
    for (auto const& b : c.plan->buckets) bytes += b.length * size_of(b.type);
    out += text("  wire      ", c.what, " ", c.when, ": ", c.plan->buckets.size(), " buckets, ",
                detail::bytes_text(bytes));
    out += c.plan->feedback ? "; what the cast cuts off is sent later\n" : "\n";
    for (auto const& b : c.plan->buckets)
      out += text("              ", b.name, ": ", b.length, " x ", name_of(b.type), ", ",
                  detail::bytes_text(b.length * size_of(b.type)), "\n");
  }
  if (p.crossings.empty()) out += "  wire      nothing crosses\n";
  out += text("  rate      over ", p.horizon.value, " ", name_of(p.horizon.in), " at the planned batch\n");
  double const unit_samples = p.horizon.in == unit::steps     ? p.planned_batch
                              : p.horizon.in == unit::samples ? 1.0
                                                              : static_cast<double>(p.now.epoch_size);
  constexpr int points = 10;
  for (int k = 0; k <= points; ++k) {
    progress at = p.now;
    double const samples = p.horizon.value * unit_samples * k / points;
    at.samples += static_cast<i64>(std::llround(samples));
    at.count_steps(static_cast<i64>(std::llround(samples / p.planned_batch)));
    out += text("              step ", at.steps, ", epoch ", at.in(unit::epochs), ": ", p.rate(at), "\n");
  }
  return out;
}

/// The same of what a site and its strategy know, and what only the optimizer does.
[[nodiscard]] inline std::string explain(training_plan p, double planned_batch, i64 share, amount horizon,
                                         std::function<double(progress const&)> rate) {
  expects(horizon.value > 0 && math::finite(horizon.value), "explain: the horizon must be positive, got ",
          horizon.value);
  p.planned_batch = planned_batch;
  p.share = share;
  p.horizon = horizon;
  p.rate = std::move(rate);
  return explain(p);
}

}  // namespace limber

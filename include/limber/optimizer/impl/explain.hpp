// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What training will do, in words and numbers, before it does it.

#include <limber/core/progress.hpp>
#include <limber/core/units.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/schedule/any_schedule.hpp>

#include <cstdio>
#include <string>
#include <vector>

namespace limber::detail {

/// Facts that `explain` prints; gathered by the optimizer.
struct training_plan {
  int rank = 0, world = 1;
  i64 tensors = 0, elements = 0, value_bytes = 0, gradient_bytes = 0, slot_bytes = 0, strategy_bytes = 0;
  double planned_batch = 0;
  i64 share = 0;
  struct communicated {
    std::string what;  ///< "gradients", "models"
    std::string when;  ///< "every call", "every 16 calls"
    bucket_plan const* plan;
  };
  std::vector<communicated> wires;
  std::string unprotected{};  ///< the first tensor in 16 bits whose rule keeps no copy in more; "": none
  dtype unprotected_type = dtype::bf16;
  amount horizon{};
  any_schedule const* rate = nullptr;
  progress now{};
};

/// 1536 → "1.5 kB".
[[nodiscard]] LIMBER_FN std::string bytes_text(i64 bytes) {
  char const* const units[] = {"B", "kB", "MB", "GB", "TB"};
  auto x = static_cast<double>(bytes);
  int u = 0;
  for (; x >= 1000 && u < 4; ++u) x /= 1000;
  char out[32];
  std::snprintf(out, sizeof out, u == 0 ? "%.0f %s" : "%.1f %s", x, units[u]);
  return out;
}

/// The text that optimizer::explain returns.
[[nodiscard]] LIMBER_FN std::string explain(training_plan const& p) {
  std::string out = text("limber: rank ", p.rank, " of ", p.world, ", ", p.tensors, " tensors, ", p.elements,
                         " parameters\n");
  out += text("  batch     ", p.planned_batch, " samples an update, ", p.share, " of them here\n");
  out +=
      text("  memory    parameters ", bytes_text(p.value_bytes), ", gradients ", bytes_text(p.gradient_bytes),
           ", rule state ", bytes_text(p.slot_bytes), ", strategy ", bytes_text(p.strategy_bytes), "\n");
  // Read the gradient for its norm; then read and write parameters and slots, and read the gradient.
  i64 const pass = 2 * p.gradient_bytes + 2 * p.value_bytes + 2 * p.slot_bytes;
  out +=
      text("  an update moves ", bytes_text(pass), " in 2 passes (norm and finite test; everything else)\n");
  if (!p.unprotected.empty())
    out += text("  precision '", p.unprotected, "' is ", name_of(p.unprotected_type),
                " and its rule keeps no fp32 copy: what moves an element by less than half a unit in its "
                "last place (",
                p.unprotected_type == dtype::bf16 ? "1/512" : "1/4096",
                " of its value) is lost; wrap the rule, master{rule}\n");
  for (auto const& c : p.wires) {
    i64 bytes = 0;
    for (auto const& b : c.plan->buckets) bytes += b.length * size_of(b.type);
    out += text("  wire      ", c.what, " ", c.when, ": ", c.plan->buckets.size(), " buckets, ",
                bytes_text(bytes));
    out += c.plan->feedback ? "; what the cast cuts off is sent later\n" : "\n";
    for (auto const& b : c.plan->buckets)
      out += text("              ", b.name, ": ", b.length, " x ", name_of(b.type), ", ",
                  bytes_text(b.length * size_of(b.type)), "\n");
  }
  if (p.wires.empty()) out += "  wire      nothing is communicated\n";
  out += text("  rate      over ", p.horizon.value, " ", name_of(p.horizon.in), " at the planned batch\n");
  double const unit_samples = p.horizon.in == unit::steps     ? p.planned_batch
                              : p.horizon.in == unit::samples ? 1.0
                                                              : static_cast<double>(p.now.epoch_size);
  constexpr int points = 10;
  for (int k = 0; k <= points; ++k) {
    progress at = p.now;
    double const samples = p.horizon.value * unit_samples * k / points;
    at.samples += static_cast<i64>(math::floor(samples + 0.5));
    at.count_steps(static_cast<i64>(math::floor(samples / p.planned_batch + 0.5)));
    out += text("              step ", at.steps);
    if (at.epoch_size > 0) out += text(", epoch ", at.in(unit::epochs));
    out += text(": ", (*p.rate)(at), "\n");
  }
  return out;
}

}  // namespace limber::detail

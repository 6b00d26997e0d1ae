// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/optimizer.hpp>
#include <limber/optimizer/impl/core.hpp>

#include <cstdio>

// What an optimizer says of itself: what training will do, and what ranks compare.

namespace limber::detail {

/// 1536 → "1.5 kB".
[[nodiscard]] LIMBER_COLD LIMBER_FN std::string bytes_text(i64 bytes) {
  char const* const units[] = {"B", "kB", "MB", "GB", "TB"};
  auto x = static_cast<double>(bytes);
  int u = 0;
  for (; x >= 1000 && u < 4; ++u) x /= 1000;
  char out[32];
  std::snprintf(out, sizeof out, u == 0 ? "%.0f %s" : "%.1f %s", x, units[u]);
  return out;
}

LIMBER_COLD LIMBER_FN std::string optimizer_core::explain(amount horizon) const {
  expects(horizon.value > 0 && math::finite(horizon.value), "explain: the horizon must be positive, got ",
          horizon.value);
  if (options_.epoch_size == 0 && horizon.in == unit::epochs) horizon = steps(1000);
  int const rank = at_.comm.rank(), world = at_.comm.size();
  i64 value_bytes = 0, gradient_bytes = 0,
      share = planning_.share[static_cast<std::size_t>(rank)] * strategy_.gradient_period();
  for (auto const& v : at_.inner.values()) value_bytes += v.bytes();
  for (auto const& g : at_.gradients) gradient_bytes += g.bytes();
  if (planning_.shards > 0)
    share = planning_.total / planning_.shards *
            (planning_.shards / world + (rank < planning_.shards % world ? 1 : 0));
  double const batch = planned_batch();
  std::string out = text("limber: rank ", rank, " of ", world, ", ", at_.inner.values().size(), " tensors, ",
                         at_.inner.elements(), " parameters\n  batch     ", batch, " samples an update, ",
                         share, " of them here\n");
  out += text("  memory    parameters ", bytes_text(value_bytes), ", gradients ", bytes_text(gradient_bytes),
              ", rule state ", bytes_text(at_.inner.slot_bytes()), ", strategy ",
              bytes_text(strategy_.bytes()), "\n");
  // Read the gradient for its norm; then read and write parameters and slots, and read the gradient.
  out += text("  an update moves ", bytes_text(2 * (gradient_bytes + value_bytes + at_.inner.slot_bytes())),
              " in 2 passes (norm and finite test; everything else)\n");
  for (auto const& m : at_.inner.model()) {
    if (m.length == 0 || size_of(m.type) != 2) continue;
    out += text("  precision '", m.name, "' is ", name_of(m.type),
                " and its rule keeps no fp32 copy: what moves an element by less than half a unit in its "
                "last place (",
                m.type == dtype::bf16 ? "1/512" : "1/4096",
                " of its value) is lost; wrap the rule, master{rule}\n");
    break;
  }
  bool silent = true;
  strategy_.communicated([&](std::string const& what, i64 period, bucket_plan const& plan) {
    silent = false;
    i64 bytes = 0;
    for (auto const& b : plan.buckets) bytes += b.length * size_of(b.type);
    out += text("  wire      ", what, " every ", period == 1 ? "call" : text(period, " calls"), ": ",
                plan.buckets.size(), " buckets, ", bytes_text(bytes),
                plan.feedback ? "; what the cast cuts off is sent later\n" : "\n");
    for (auto const& b : plan.buckets)
      out += text("              ", b.name, ": ", b.length, " x ", name_of(b.type), ", ",
                  bytes_text(b.length * size_of(b.type)), "\n");
  });
  if (silent) out += "  wire      nothing is communicated; the rule reads gradients where they lie\n";
  out += text("  rate      over ", horizon.value, " ", name_of(horizon.in), " at the planned batch\n");
  double const unit_samples = horizon.in == unit::steps     ? batch
                              : horizon.in == unit::samples ? 1.0
                                                            : static_cast<double>(at_.now.epoch_size);
  constexpr int points = 10;
  for (int k = 0; k <= points; ++k) {
    progress at = at_.now;
    double const samples = horizon.value * unit_samples * k / points;
    at.samples += static_cast<i64>(math::floor(samples + 0.5));
    at.count_steps(static_cast<i64>(math::floor(samples / batch + 0.5)));
    out += text("              step ", at.steps);
    if (at.epoch_size > 0) out += text(", epoch ", at.in(unit::epochs));
    out += text(": ", rate_(at), "\n");
  }
  return out;
}

// Of all that must be equal on all ranks and can be compared before anything is exchanged.
LIMBER_COLD LIMBER_FN std::uint64_t optimizer_core::fingerprint_of_run() const {
  fingerprint h;
  strategy_.mix(h);
  at_.inner.mix(h);
  h.mix(options_.epoch_size);
  h.mix(options_.max_skipped);
  h.mix(static_cast<i64>(options_.gradient));
  h.mix(options_.ramp.steps_per_growth);
  h.mix(static_cast<i64>(options_.ramp.proportional) + 2 * static_cast<i64>(options_.ramp.on_decrease));
  return h.value();
}

// A line for everything that goes into the fingerprint.
LIMBER_COLD LIMBER_FN std::string optimizer_core::description_of_run() const {
  std::string out;
  for (std::size_t i = 0; i < at_.inner.values().size(); ++i) {
    auto const &v = at_.inner.values()[i], &g = at_.gradients[i];
    out += text("tensor '", v.name, "': ", v.length, " x ", name_of(v.type), ", gradient ", name_of(g.type),
                "\n");
  }
  for (auto const& b : at_.buffers)
    out += text("buffer '", b.name, "': ", b.length, " x ", name_of(b.type), "\n");
  at_.inner.describe([&](std::string_view tensor, std::string_view rule, double lr_scale) {
    out += text("the rule of '", tensor, "': ", rule,
                lr_scale == 1 ? std::string() : text(" with lr_scale ", lr_scale), "\n");
  });
  out += text("options.epoch_size: ", options_.epoch_size, "\noptions.max_skipped: ", options_.max_skipped,
              "\noptions.gradient: ", options_.gradient == gradient_is::mean ? "mean" : "sum",
              "\noptions.ramp: ", options_.ramp.steps_per_growth, " steps per growth, ",
              options_.ramp.proportional ? "proportional" : "fixed",
              options_.ramp.on_decrease ? ", on decrease too" : "", "\n");
  out += text("options.buckets.bytes: ", options_.buckets.first_bytes, ", then ", options_.buckets.bytes,
              "\noptions.buckets.wire: ", options_.buckets.wire ? name_of(*options_.buckets.wire) : "none",
              options_.buckets.error_feedback ? ", with error feedback" : "", "\n");
  strategy_.describe(
      [&](std::string_view what, std::string const& value) { out += text(what, ": ", value, "\n"); });
  return out;
}

}  // namespace limber::detail

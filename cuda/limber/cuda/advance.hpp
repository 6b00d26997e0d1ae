// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The control kernel before a step: settles the update before, moves progress, evaluates the schedule.

#include <limber/cuda/device_state.hpp>
#include <limber/fuse/norm_report.hpp>
#include <limber/fuse/rule_counters.hpp>
#include <limber/schedule/gain.hpp>
#include <limber/schedule/schedule.hpp>

namespace limber::gpu {

/// What a call of `advance` says by value.
struct advance_facts {
  double count = 0;    ///< samples of this rank's gradient
  double planned = 1;  ///< planned samples of an update, all ranks: a change re-arms the ramp
  ramp_rule ramp{};
  gradient_is gradient = gradient_is::mean;
};

namespace detail {

/// The counters of all rule types, one after the other. (A std::tuple cannot be used in a kernel.)
template <class... R>
struct counters_of {
  LIMBER_HD void operator()(i64, hyper_block const&, hyper_block const&, bool, norm_facts const&) const {}
  LIMBER_HD void commit(i64, hyper_block const&, norm_facts const&) const {}
};
template <class First, class... Rest>
struct counters_of<First, Rest...> {
  limber::detail::rule_counters<First> counters;
  i64 tensors;
  counters_of<Rest...> rest;

  LIMBER_HD void operator()(i64 i, hyper_block const& before, hyper_block const& next, bool pending,
                            norm_facts const& gradient) const {
    if (i >= tensors) return rest(i - tensors, before, next, pending, gradient);
    if (pending) counters.commit(i, before, gradient);
    counters.prepare(i, next);
  }
  LIMBER_HD void commit(i64 i, hyper_block const& before, norm_facts const& gradient) const {
    if (i >= tensors) return rest.commit(i - tensors, before, gradient);
    counters.commit(i, before, gradient);
  }
};

}  // namespace detail

/// What the update in flight left behind, and what it came to: a pure function of memory.
struct landing {
  device_state const* before;
  hyper_block const* settled;  ///< of several ranks: what the update really used
  wire_control const* all;     ///< of several ranks: the summed control block
  norm_facts gradient;         ///< of the mean gradient, before `scale`
  i64 ranks = 1;

  [[nodiscard]] LIMBER_HD hyper_block used() const noexcept {
    return ranks > 1 && before->pending != 0 ? *settled : before->hyper;
  }

  /// The state with progress moved. @param name  also look for the culprit
  [[nodiscard]] LIMBER_HD device_state state(bool name) const noexcept {
    device_state s = *before;
    hyper_block const h = used();
    if (s.pending == 0 || h.hold != 0) return s;
    if (!gradient.finite()) {
      ++s.skipped_in_a_row;
      s.culprit = -1;
      if (name)
        for (i64 t = gradient.tensors - 1; t >= 0; --t)
          if (!gradient.narrow[t].sum.finite() || !gradient.wide[t].sum.finite()) s.culprit = t;
      return s;
    }
    double const count = ranks > 1 ? all->count : s.count;
    s.skipped_in_a_row = 0;
    s.now.count_steps(1);
    s.now.samples += static_cast<i64>(count);
    if (ranks > 1)
      s.now.noise.update(all->contributions, count, all->weighted_squares,
                         gradient.total_square() * h.scale * h.scale);
    return s;
  }
};

/// f(i) for every tensor i, at least one: each evaluates the schedule for itself, in double, and
/// prepares its own coefficients; the first writes the state. Nothing that one writes is read by another.
///
///     progress of the update in flight is settled: applied, skipped or held
///     calls ← calls + 1; the ramp is re-armed if the plan changed; η = schedule(progress)
template <class Schedule, class Counters>
struct advance {
  Schedule schedule;
  advance_facts facts;
  Counters counters;
  landing from;
  device_state* after;
  device_state* mirror;  ///< a copy for the host, or null
  hyper_block* hyper;
  wire_facts* wire;
  wire_control* mine;

  LIMBER_NO_EXEC_CHECK
  LIMBER_HD void operator()(i64 i) const {
    device_state s = from.state(i == 0);
    ++s.now.calls;
    if (s.now.batch.to != facts.planned)
      s.now.batch = s.now.steps == 0 ? ramp{facts.planned, facts.planned, 0, 0}
                                     : s.now.batch.rearmed(s.now.steps, facts.planned, facts.ramp);
    bool const alone = from.ranks == 1, mean = facts.gradient == gradient_is::mean, any = facts.count > 0;
#if defined(__CUDA_ARCH__)
    double const rate = on_device(schedule, s.now);  // refuses host-only schedules at compile time
#else
    double const rate = schedule(s.now);
#endif
    s.now.gain = gain_of(schedule, s.now);
    s.hyper = hyper_block(rate, alone && !mean && any ? 1 / facts.count : 1, alone && !any);
    s.count = facts.count;
    s.pending = 1;
    counters(i, from.used(), s.hyper, from.before->pending != 0, from.gradient);
    if (i != 0) return;
    *after = s;
    if (mirror != nullptr) *mirror = s;
    *hyper = s.hyper;
    wire->nominal = facts.planned;
    wire->gradient = facts.gradient;
    wire->weight = scalar((mean ? facts.count : any ? 1.0 : 0.0) / facts.planned);
    *mine = wire_control{facts.count, 0, 0};
  }
};

/// The same without a new update: settles what is in flight, for reading and saving.
template <class Counters>
struct land {
  Counters counters;
  landing from;
  device_state* after;
  device_state* mirror;

  LIMBER_HD void operator()(i64 i) const {
    if (from.before->pending != 0) counters.commit(i, from.used(), from.gradient);
    if (i != 0) return;
    *after = from.state(true);
    after->pending = 0;
    *mirror = *after;
  }
};

}  // namespace limber::gpu

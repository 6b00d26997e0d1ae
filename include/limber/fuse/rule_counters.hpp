// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a rule's state has seen, and the coefficients that follow from it: control, run per tensor.

#include <limber/core/random.hpp>
#include <limber/fuse/norm_report.hpp>
#include <limber/rule/rule.hpp>

namespace limber {

/// The hyper block, what all tensors of one update share in memory that kernels read: written by the host
/// before a step, or by a kernel that evaluates the schedule.
struct hyper_block {
  double rate = 0;         ///< η
  double scale = 1;        ///< multiplies every gradient: unscales, averages
  float narrow_scale = 1;  ///< the same for arithmetic in float
  std::int32_t hold = 0;   ///< 1: nobody had samples; no update is made

  hyper_block() = default;
  LIMBER_HD hyper_block(double r, double s, bool none = false) noexcept
      : rate(r), scale(s), narrow_scale(static_cast<float>(s)), hold(none ? 1 : 0) {}

  template <class T>
  [[nodiscard]] LIMBER_HD T scale_as() const noexcept {
    if constexpr (sizeof(T) == sizeof(double))
      return scale;
    else
      return narrow_scale;
  }
};

/// A rule as a group carries it.
template <update_rule R>
struct rule_share {
  R rule;
  double lr_scale = 1;
};

namespace detail {

/// What an updater says of a tensor, whatever its rule.
struct rule_flags {
  i64 wide = 0;    ///< arithmetic in double
  i64 frozen = 0;  ///< left out of updates
};

/// A tensor's part in an updater, as control functors see it: flags first.
template <update_rule R>
struct rule_entry {
  rule_flags is;
  rule_share<R> share;
};

/// rule.at<T>(f); on a device, refused at compile time if it is host-only.
LIMBER_NO_EXEC_CHECK
template <class T, update_rule R>
[[nodiscard]] LIMBER_HD inline coefficients_of<R, T> coefficients_at(R const& rule, update_facts f) {
#if defined(__CUDA_ARCH__)
  return on_device<T>(rule, f);
#else
  return rule.template at<T>(f);
#endif
}

/// Counters and coefficients of the tensors of one rule type, in executor-side memory.
///
/// `prepare` before a step turns the rate into coefficients, in double; `commit` after it counts the
/// update, if it was made. Both touch tensor t's own entries alone, so any order will do.
template <update_rule R>
struct rule_counters {
  rule_entry<R> const* entries;
  i64* seen;              ///< updates the tensor's state has seen
  double* previous_rate;  ///< η of the last of them
  coefficients_of<R, float>* narrow;
  coefficients_of<R, double>* wide;
  rounding* round;

  LIMBER_NO_EXEC_CHECK
  LIMBER_HD void prepare(i64 t, hyper_block const& h) const {
    rule_entry<R> const& e = entries[t];
    double const scale = e.share.lr_scale;
    double const before = seen[t] == 0 ? h.rate : previous_rate[t];
    update_facts const f{seen[t] + 1, h.rate * scale, before * scale};
    if (e.is.wide != 0)
      wide[t] = coefficients_at<double>(e.share.rule, f);
    else
      narrow[t] = coefficients_at<float>(e.share.rule, f);
    round[t] = rounding_of(e.share.rule, f.t);
  }

  LIMBER_HD void commit(i64 t, hyper_block const& h, norm_facts const& gradient) const noexcept {
    if (entries[t].is.frozen != 0 || h.hold != 0 || !gradient.finite()) return;
    ++seen[t];
    previous_rate[t] = h.rate;
  }
};

template <update_rule R>
struct prepare_rule {
  rule_counters<R> counters;
  hyper_block const* hyper;
  LIMBER_HD void operator()(i64 t) const { counters.prepare(t, *hyper); }
};

template <update_rule R>
struct commit_rule {
  rule_counters<R> counters;
  hyper_block const* hyper;
  norm_facts gradient;
  LIMBER_HD void operator()(i64 t) const noexcept { counters.commit(t, *hyper, gradient); }
};

/// Forgets what was seen, but of frozen tensors.
template <update_rule R>
struct forget_rule {
  rule_counters<R> counters;
  LIMBER_HD void operator()(i64 t) const noexcept {
    if (counters.entries[t].is.frozen == 0) counters.seen[t] = 0;
  }
};

}  // namespace detail
}  // namespace limber

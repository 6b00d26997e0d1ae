// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tensors that one type of rule updates, with their slots and counters.

#include <limber/core/fingerprint.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/layout.hpp>
#include <limber/fuse/rule_fingerprint.hpp>
#include <limber/fuse/rule_functors.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace limber {

/// A rule as a group carries it.
template <update_rule R>
struct rule_share {
  R rule;
  double lr_scale = 1;
};

namespace detail {

/// One rule type's share of an updater: one pass over memory for all its tensors.
///
/// State    `seen` (updates per tensor), `previous_rate`, `seeded` and the slots: all of it is visited.
template <update_rule R>
class updater_part {
 public:
  using rule_type = R;

  /// Adds a tensor. @param index its place in the updater's list @param origin its first element's index
  void add(i64 index, rule_share<R> share, tensor_view value, i64 origin) {
    limber::check(share.rule);
    expects(share.lr_scale >= 0 && math::finite(share.lr_scale), "'", value.name,
            "': lr_scale must be a number of at least 0, got ", share.lr_scale);
    index_.push_back(index);
    shares_.push_back(share);
    all_.push_back(value);
    origin_.push_back(origin);
    names_.emplace_back(value.name);
  }

  /// Allocates slots and working lists; nothing is allocated afterwards.
  template <executor E>
  void allocate(E& e) {
    int used = 0;
    for (auto const& s : shares_) used = std::max(used, slots_used(s.rule));
    for (int k = 0; k < used; ++k) slots_.push_back(e.make(layout_of(all_)));
    for (auto const& s : slots_) working_.push_back(s.parts);
    auto const n = index_.size();
    values_ = gradients_ = all_;
    frozen_.assign(n, 0);
    previous_rate_.assign(n, 0);
    seen_.assign(n, 0);
    seeded_.assign(n, 0);
    narrow_.resize(n);
    wide_.resize(n);
    value_root_.resize(n);
    gradient_root_.resize(n);
    round_.resize(n);
  }

  /// Weight slots start as copies of the parameter; done once per tensor, before its first update.
  template <executor E>
  void seed(E& e) {
    if (std::ranges::find(seeded_, i64{0}) == seeded_.end()) return;
    for (std::size_t k = 0; k < slots_.size(); ++k) {
      if (R::slots[k] != slot::weight) continue;
      tensor_list to = slots_[k].parts;
      for (std::size_t t = 0; t < to.size(); ++t)
        if (seeded_[t] != 0) to[t].length = 0;
      tensor_list from = all_;
      for (std::size_t t = 0; t < to.size(); ++t) from[t].length = to[t].length;
      e.each(copy{}, out(to), in(from));
    }
    std::ranges::fill(seeded_, i64{1});
  }

  /// One update. `report` holds the norms of the updater's whole gradient list; not the executor's own
  /// copy, which the passes in here overwrite.
  template <bool Zero, executor E>
  void step(E& e, tensor_list const& gradients, std::vector<i64> const& frozen, norm_report const& report,
            double rate, double scale) {
    mask(frozen);
    prepare(e, gradients, report, rate);
    auto const facts = step_facts<R>{
        narrow_.data(),        wide_.data(),      needs_value_norm<R> ? value_root_.data() : nullptr,
        gradient_root_.data(), report.total.root, scale};
    dispatch<0>([&](auto const&... slots) {
      if constexpr (two_pass<R>) {
        auto const& directions = e.norm(direct_source<R>{facts}, inout(gradients_), in(values_), slots...);
        direction_root_.resize(index_.size());
        for (std::size_t t = 0; t < index_.size(); ++t) direction_root_[t] = directions.tensors[t].root;
        e.each(apply_source<R>{facts, direction_root_.data()}, inout(values_, round_.data(), origin_.data()),
               inout(gradients_), slots...);
      } else if constexpr (Zero) {
        e.each(update_source<R>{facts}, inout(values_, round_.data(), origin_.data()), inout(gradients_),
               slots...);
      } else {
        e.each(update_source<R>{facts}, inout(values_, round_.data(), origin_.data()), in(gradients_),
               slots...);
      }
    });
    for (std::size_t t = 0; t < index_.size(); ++t) {
      if (frozen_[t] != 0) continue;
      ++seen_[t];
      previous_rate_[t] = rate;
    }
  }

  /// Replaces the entries of `model` by the masters, where the rule keeps one.
  void masters(tensor_list& model) const {
    if constexpr (has_master<R>)
      for (std::size_t t = 0; t < index_.size(); ++t)
        model[static_cast<std::size_t>(index_[t])] = slots_[R::master_slot].parts[t];
  }

  /// Writes the masters back into the parameters, rounded to nearest: the same bits on every rank.
  template <executor E>
  void publish(E& e) {
    if constexpr (has_master<R>) e.each(copy{}, out(all_), in(slots_[R::master_slot].parts));
  }

  /// Calls f(kind, list) for each slot but the master, which is part of the model.
  template <class F>
  void slots(F const& f) {
    for (std::size_t k = 0; k < slots_.size(); ++k) {
      if constexpr (has_master<R>)
        if (static_cast<int>(k) == R::master_slot) continue;
      f(R::slots[k], slots_[k].parts);
    }
  }

  /// Forgets gradient history: moments to zero, so that the next update is the first for bias
  /// correction and dampening. Weight slots stay, and so does all state of frozen tensors.
  template <executor E>
  void reset_moments(E& e, std::vector<i64> const& frozen) {
    mask(frozen);
    for (std::size_t k = 0; k < slots_.size(); ++k)
      if (R::slots[k] == slot::moment) e.each(zero{}, out(working_[k]));
    for (std::size_t t = 0; t < index_.size(); ++t)
      if (frozen_[t] == 0) seen_[t] = 0;
  }

  /// Mixes every rule and rate scale into `h`.
  void mix(fingerprint& h) const {
    for (auto const& s : shares_) {
      mix_rule(h, s.rule);
      h.mix(s.lr_scale);
    }
  }

  /// Calls f(name, view, is_weight) for counters and slots.
  template <class F>
  void visit(std::string const& prefix, F const& f) {
    f(prefix + "seen", view(seen_), false);
    f(prefix + "seeded", view(seeded_), false);
    f(prefix + "previous_rate", view(previous_rate_), false);
    for (std::size_t k = 0; k < slots_.size(); ++k)
      for (std::size_t t = 0; t < index_.size(); ++t)
        f(text(prefix, "slot", k, "/", names_[t]), slots_[k].parts[t], R::slots[k] == slot::weight);
  }

  [[nodiscard]] std::size_t size() const noexcept { return index_.size(); }
  [[nodiscard]] i64 slot_bytes() const noexcept {
    i64 sum = 0;
    for (auto const& s : slots_) sum += s.bytes;
    return sum;
  }
  [[nodiscard]] std::vector<i64> const& seen() const noexcept { return seen_; }

 private:
  // A frozen tensor has length 0 in the lists of a step; executors pass over it.
  void mask(std::vector<i64> const& frozen) {
    for (std::size_t t = 0; t < index_.size(); ++t) {
      frozen_[t] = frozen[static_cast<std::size_t>(index_[t])];
      values_[t].length = frozen_[t] != 0 ? 0 : all_[t].length;
      for (auto& s : working_) s[t].length = values_[t].length;
    }
  }

  template <executor E>
  void prepare(E& e, tensor_list const& gradients, norm_report const& report, double rate) {
    seed(e);
    for (std::size_t t = 0; t < index_.size(); ++t) {
      auto const i = static_cast<std::size_t>(index_[t]);
      gradients_[t] = gradients[i];
      gradients_[t].length = values_[t].length;
      gradient_root_[t] = report.tensors[i].root;
      double const scale = shares_[t].lr_scale;
      bool const first = seen_[t] == 0;
      update_facts const f{seen_[t] + 1, rate * scale, (first ? rate : previous_rate_[t]) * scale};
      if (values_[t].type == dtype::f64)
        wide_[t] = shares_[t].rule.template at<double>(f);
      else
        narrow_[t] = shares_[t].rule.template at<float>(f);
    }
    set_rounding();
    if constexpr (needs_value_norm<R>) {
      auto const& values = e.norm(identity{}, in(model()));
      for (std::size_t t = 0; t < index_.size(); ++t) value_root_[t] = values.tensors[t].root;
    }
  }

  [[nodiscard]] tensor_list const& model() const noexcept {
    if constexpr (has_master<R>)
      return working_[R::master_slot];
    else
      return values_;
  }

  void set_rounding() {
    for (std::size_t t = 0; t < index_.size(); ++t) round_[t] = rounding_of(shares_[t].rule, seen_[t] + 1);
  }

  // Calls body with as many slot operands as the rule uses.
  template <std::size_t K, class Body>
  void dispatch(Body const& body) {
    constexpr auto slots = std::make_index_sequence<K>{};
    if (K == slots_.size()) {
      if constexpr (takes_slots<R>(slots))
        return with_slots(body, slots);
      else
        throw std::logic_error(text("limber: the rule takes no ", K, " slots, as its slot_count says"));
    }
    if constexpr (K < R::slots.size()) dispatch<K + 1>(body);
  }

  template <class Body, std::size_t... J>
  void with_slots(Body const& body, std::index_sequence<J...>) {
    body(inout(working_[J])...);
  }

  std::vector<i64> index_, origin_;
  std::vector<rule_share<R>> shares_;
  std::vector<std::string> names_;
  tensor_list all_, values_, gradients_;  // values_ and gradients_ as a step sees them
  std::vector<slab> slots_;
  std::vector<tensor_list> working_;  // the slots as a step sees them
  std::vector<i64> seen_, seeded_, frozen_;
  std::vector<double> previous_rate_;
  std::vector<coefficients_of<R, float>> narrow_;
  std::vector<coefficients_of<R, double>> wide_;
  std::vector<double> value_root_, gradient_root_, direction_root_;
  std::vector<rounding> round_;
};

}  // namespace detail
}  // namespace limber

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
#include <limber/fuse/rule_counters.hpp>
#include <limber/fuse/rule_fingerprint.hpp>
#include <limber/fuse/rule_functors.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace limber {

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

  /// Allocates slots, counters and working lists; nothing is allocated afterwards.
  template <executor E>
  void allocate(E& e) {
    int used = 0;
    for (auto const& s : shares_) used = std::max(used, slots_used(s.rule));
    for (int k = 0; k < used; ++k) slots_.push_back(e.make(layout_of(all_)));
    for (auto const& s : slots_) working_.push_back(s.parts);
    auto const n = static_cast<i64>(index_.size());
    values_ = gradients_ = all_;
    seeded_.assign(index_.size(), 0);
    entries_ = e.template share<rule_entry<R>>(n);
    seen_ = e.template share<i64>(n);
    previous_rate_ = e.template share<double>(n);
    narrow_ = e.template share<coefficients_of<R, float>>(n);
    wide_ = e.template share<coefficients_of<R, double>>(n);
    round_ = e.template share<rounding>(n);
    position_ = e.template share<i64>(n);
    origin_memory_ = e.template share<i64>(n);
    for (std::size_t t = 0; t < index_.size(); ++t) {
      entries_[t] = {shares_[t], all_[t].type == dtype::f64 ? 1 : 0, 0};
      position_[t] = index_[t];
      origin_memory_[t] = origin_[t];
    }
    e.publish(entries_);
    e.publish(position_);
    e.publish(origin_memory_);
    if constexpr (two_pass<R>) directions_ = make_norms(e, n, needs_value_norm<R> ? 2 : 1);
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

  /// Counters and coefficients, for control functors.
  [[nodiscard]] rule_counters<R> counters() const noexcept {
    return {entries_.device, seen_.device, previous_rate_.device,
            narrow_.device,  wide_.device, round_.device};
  }

  /// Leaves frozen tensors out of the coming steps: they have length 0 in the lists of a step.
  template <executor E>
  void mask(E& e, std::vector<i64> const& frozen) {
    bool changed = false;
    for (std::size_t t = 0; t < index_.size(); ++t) {
      i64 const now = frozen[static_cast<std::size_t>(index_[t])];
      if (entries_[t].frozen == now) continue;
      changed = true;
      entries_[t].frozen = now;
      values_[t].length = now != 0 ? 0 : all_[t].length;
      for (auto& s : working_) s[t].length = values_[t].length;
    }
    if (changed) e.publish(entries_);
  }

  /// Turns the rate in `hyper` into coefficients.
  template <executor E>
  void prepare(E& e, shared_array<hyper_block> const& hyper) {
    e.run(seen_.n, prepare_rule<R>{counters(), hyper.device});
  }

  /// Counts the update, if it was made.
  template <executor E>
  void commit(E& e, shared_array<hyper_block> const& hyper, norm_facts const& gradient) {
    e.run(seen_.n, commit_rule<R>{counters(), hyper.device, gradient});
  }

  /// One update from the updater's gradients and norms. @pre prepare
  template <bool Zero, executor E>
  void step(E& e, tensor_list const& gradients, shared_array<hyper_block> const& hyper,
            norm_facts const& gradient, norm_facts const& value) {
    for (std::size_t t = 0; t < index_.size(); ++t) {
      gradients_[t] = gradients[static_cast<std::size_t>(index_[t])];
      gradients_[t].length = values_[t].length;
    }
    step_facts<R> const facts{narrow_.device, wide_.device, position_.device, hyper.device, gradient, value};
    auto const values = inout(values_, round_.device, origin_memory_.device);
    dispatch<0>([&](auto const&... slots) {
      if constexpr (two_pass<R>) {
        e.measure(directions_, direct_source<R>{facts}, inout(gradients_), in(values_), slots...);
        apply_source<R, Zero> const source{facts, directions_.facts(),
                                           directions_.facts(needs_value_norm<R> ? 1 : 0)};
        constexpr std::size_t kept = sizeof...(slots) - std::min(sizeof...(slots), slots_spared<R>);
        with_slots([&](auto const&... few) { e.each(source, values, inout(gradients_), few...); },
                   std::make_index_sequence<kept>{});
      } else if constexpr (Zero) {
        e.each(update_source<R>{facts}, values, inout(gradients_), slots...);
      } else {
        e.each(update_source<R>{facts}, values, in(gradients_), slots...);
      }
    });
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
    mask(e, frozen);
    for (std::size_t k = 0; k < slots_.size(); ++k)
      if (R::slots[k] == slot::moment) e.each(zero{}, out(working_[k]));
    e.run(seen_.n, forget_rule<R>{counters()});
  }

  /// Mixes every rule and rate scale into `h`.
  void mix(fingerprint& h) const {
    for (auto const& s : shares_) {
      mix_rule(h, s.rule);
      h.mix(s.lr_scale);
    }
  }

  /// Calls f(name, view, is_weight) for counters and slots, in executor-side memory where kernels write.
  template <class F>
  void visit(std::string const& prefix, F const& f) {
    f(prefix + "seen", device_view(seen_), false);
    f(prefix + "seeded", view(seeded_), false);
    f(prefix + "previous_rate", device_view(previous_rate_), false);
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
  [[nodiscard]] shared_array<i64> const& seen() const noexcept { return seen_; }

 private:
  template <class T>
  [[nodiscard]] static tensor_view device_view(shared_array<T> const& a) noexcept {
    return {reinterpret_cast<std::byte*>(a.device), a.n, dtype_of<T>, {}};
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
  std::vector<i64> seeded_;
  shared_array<rule_entry<R>> entries_;
  shared_array<i64> seen_, position_, origin_memory_;
  shared_array<double> previous_rate_;
  shared_array<coefficients_of<R, float>> narrow_;
  shared_array<coefficients_of<R, double>> wide_;
  shared_array<rounding> round_;
  norm_memory directions_;
};

}  // namespace detail
}  // namespace limber

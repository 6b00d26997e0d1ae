// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A rule with its state: what every update goes through, the trainer's and a strategy's outer one.

#include <limber/core/tensor.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/updater_part.hpp>

#include <algorithm>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

namespace limber {

namespace detail {

// The rule types of a list of groups, each once.
template <class Done, class... R>
struct unique_rules;
template <class... Done>
struct unique_rules<std::tuple<Done...>> {
  using type = std::tuple<Done...>;
};
template <class... Done, class First, class... Rest>
struct unique_rules<std::tuple<Done...>, First, Rest...>
    : std::conditional_t<(std::is_same_v<First, Done> || ...), unique_rules<std::tuple<Done...>, Rest...>,
                         unique_rules<std::tuple<Done..., First>, Rest...>> {};

}  // namespace detail

/// What a step came to.
struct verdict {
  bool applied = false;
  i64 culprit = -1;        ///< not applied: index of the first tensor with a non-finite gradient
  double mean_square = 0;  ///< ‖ḡ‖² of the gradient that was, or would have been, applied
};

/// Rules with their slots and counters over one list of tensors: one norm, one finite test, one skip,
/// one pass over memory per type of rule.
///
/// State    slots, updates per tensor (`t` of bias correction, per buffer) and the rate before: all
///          shown by `visit`. Weight slots start as a copy of the parameter at the first step.
/// Cost     a read of the gradient for its norm, then one read and one write of everything.
/// Errors   a non-finite gradient changes nothing at all; the verdict names the tensor.
/// Choices  a two-pass rule (LAMB) keeps its direction where the gradient was: from a 16-bit wire or a
///          16-bit gradient it is rounded to that type once more.
template <update_rule... R>
class updater {
  static constexpr bool wants_value_norm = ((needs_value_norm<R> && !two_pass<R>) || ...);

 public:
  /// @param values  the parameters, sorted by name: the order fixes the bits of the global norm
  explicit updater(tensor_list values) : values_(std::move(values)), frozen_(values_.size(), 0) {
    for (std::size_t i = 1; i < values_.size(); ++i)
      expects(values_[i - 1].name < values_[i].name, "updater: '", values_[i].name, "' follows '",
              values_[i - 1].name, "'; the list must be sorted by name, without repetition");
    for (auto const& v : values_) {
      origin_.push_back(elements_);
      elements_ += v.length;
    }
    gradients_ = values_;
  }

  /// Gives tensor `index` to a rule. @pre every tensor gets exactly one, before `allocate`
  template <class Rule>
  void assign(i64 index, Rule const& rule, double lr_scale = 1) {
    auto const i = static_cast<std::size_t>(index);
    part<Rule>().add(index, {rule, lr_scale}, values_[i], origin_[i]);
  }

  /// Allocates the slots. Called once, after the last `assign`.
  template <executor E>
  void allocate(E& e) {
    std::size_t assigned = 0;
    each_part([&](auto& p) { assigned += p.size(); });
    expects(assigned == values_.size(), "updater: ", assigned, " rules for ", values_.size(), " tensors");
    each_part([&](auto& p) { p.allocate(e); });
    hyper_ = e.template share<hyper_block>(1);
    norms_ = make_norms(e, static_cast<i64>(values_.size()), wants_value_norm ? 2 : 1);
    measured_ = model();
  }

  /// Copies parameters into weight slots that were never seeded.
  template <executor E>
  void seed(E& e) {
    each_part([&](auto& p) { p.seed(e); });
  }

  /// Applies scale · gradients at `rate`, or nothing if an element is not finite. Synchronizes.
  ///
  /// @tparam Zero  also zero the gradients, in the same pass; on a skip too
  template <bool Zero, executor E>
  verdict step(E& e, tensor_list const& gradients, double rate, double scale) {
    hyper_[0] = hyper_block(rate, scale);
    e.publish(hyper_);
    seed(e);
    mask(e);
    each_part([&](auto& p) { p.prepare(e, hyper_); });
    launch<Zero>(e, gradients);
    each_part([&](auto& p) { p.commit(e, hyper_, norms_.facts()); });
    norm_report const& report = e.report(norms_);
    return {report.total.finite, report.culprit, report.total.square * scale * scale};
  }

  /// The part of a step that touches tensors: norm, finite test, update; coefficients, rate and scale
  /// are read from executor-side memory. Does not synchronize. @pre seed, mask; the parts prepared
  template <bool Zero, executor E>
  void launch(E& e, tensor_list const& gradients) {
    expects(gradients.size() == values_.size(), "updater: ", gradients.size(), " gradients for ",
            values_.size(), " parameters");
    bool any_frozen = false;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      gradients_[i] = gradients[i];
      if (frozen_[i] == 0) continue;
      gradients_[i].length = 0;
      any_frozen = true;
    }
    if constexpr (wants_value_norm)
      e.measure(norms_, detail::gradient_and_value{}, in(gradients_), in(measured_));
    else
      e.measure(norms_, identity{}, in(gradients_));
    auto const value = wants_value_norm ? norms_.facts(1) : norm_facts{};
    each_part([&](auto& p) {
      if (p.size() > 0) p.template step<Zero>(e, gradients_, hyper_, norms_.facts(), value);
    });
    if constexpr (Zero)
      if (any_frozen) e.each(zero{}, limber::out(gradients));
  }

  /// Takes what was frozen since into the lists of a step. Does not synchronize.
  template <executor E>
  void mask(E& e) {
    each_part([&](auto& p) { p.mask(e, frozen_); });
    if constexpr (wants_value_norm)
      for (std::size_t i = 0; i < values_.size(); ++i)
        measured_[i].length = frozen_[i] != 0 ? 0 : values_[i].length;
  }

  /// What steps read and a kernel may write instead of the host: rate, scale, hold.
  [[nodiscard]] shared_array<hyper_block> const& hyper() const noexcept { return hyper_; }
  /// Norms of the last step's gradients, before `scale`.
  [[nodiscard]] norm_memory const& norms() const noexcept { return norms_; }
  /// Counters and coefficients of the tensors of rule `Rule`, for control functors.
  template <class Rule>
  [[nodiscard]] detail::rule_counters<Rule> counters() const noexcept {
    return std::get<detail::updater_part<Rule>>(parts_).counters();
  }

  /// Leaves tensor `index` out of norms and updates from now on, or takes it back in. Its state stays.
  void freeze(i64 index, bool frozen) { frozen_[static_cast<std::size_t>(index)] = frozen ? 1 : 0; }
  [[nodiscard]] bool is_frozen(std::size_t index) const noexcept { return frozen_[index] != 0; }

  /// The model that may cross the wire: masters where a rule keeps them, the parameters elsewhere.
  [[nodiscard]] tensor_list model() const {
    tensor_list out = values_;
    std::apply([&](auto const&... p) { (p.masters(out), ...); }, parts_);
    return out;
  }

  /// Writes masters back into the parameters, after a merge changed them.
  template <executor E>
  void publish(E& e) {
    each_part([&](auto& p) { p.publish(e); });
  }

  /// Calls f(slot, list) for every slot that is not the model itself.
  template <class F>
  void slots(F const& f) {
    each_part([&](auto& p) { p.slots(f); });
  }

  template <executor E>
  void reset_moments(E& e) {
    each_part([&](auto& p) { p.reset_moments(e, frozen_); });
  }

  /// Calls f(name, view, is_weight) for every piece of state.
  template <class F>
  void visit(std::string const& prefix, F const& f) {
    f(prefix + "frozen", view(frozen_), true);
    int k = 0;
    each_part([&](auto& p) { p.visit(text(prefix, "rule", k++, "/"), f); });
  }

  /// Mixes every rule into `h`.
  void mix(fingerprint& h) const {
    std::apply([&](auto const&... p) { (p.mix(h), ...); }, parts_);
  }

  [[nodiscard]] tensor_list const& values() const noexcept { return values_; }
  [[nodiscard]] i64 elements() const noexcept { return elements_; }
  [[nodiscard]] i64 slot_bytes() const noexcept {
    return std::apply([](auto const&... p) { return (i64{0} + ... + p.slot_bytes()); }, parts_);
  }
  /// Updates that the state of the tensors of rule `Rule` has seen, in their order; `collect` it first.
  template <class Rule>
  [[nodiscard]] shared_array<i64> const& seen() const noexcept {
    return std::get<detail::updater_part<Rule>>(parts_).seen();
  }

 private:
  template <class Rule>
  detail::updater_part<Rule>& part() {
    return std::get<detail::updater_part<Rule>>(parts_);
  }
  template <class F>
  void each_part(F const& f) {
    std::apply([&](auto&... p) { (f(p), ...); }, parts_);
  }

  tensor_list values_, gradients_;
  std::vector<i64> origin_, frozen_;
  i64 elements_ = 0;
  tensor_list measured_;  // the model, as norms see it
  shared_array<hyper_block> hyper_;
  norm_memory norms_;
  std::tuple<detail::updater_part<R>...> parts_;
};

/// The updater for a tuple of rule types: updater_of<std::tuple<sgd, adamw>> is updater<sgd, adamw>.
template <class Rules>
struct updater_for;
template <class... R>
struct updater_for<std::tuple<R...>> {
  using type = updater<R...>;
};
template <class... R>
using updater_of_groups = typename updater_for<typename detail::unique_rules<std::tuple<>, R...>::type>::type;

}  // namespace limber

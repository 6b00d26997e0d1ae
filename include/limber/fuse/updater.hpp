// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Rules with their state: what every update goes through, the trainer's and a strategy's outer one.

#include <limber/core/function_ref.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/any_rule.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace limber {

/// What a step came to.
struct step_result {
  bool applied = false;
  i64 culprit = -1;        ///< not applied: index of the first tensor with a non-finite gradient
  double mean_square = 0;  ///< ‖ḡ‖² of the gradient that was, or would have been, applied
};

namespace detail {

/// The tensors of one type of rule: one pass over memory for all of them.
struct updater_part {
  rule_type const* type = nullptr;
  rule_kernel kernel = nullptr;        ///< null until `allocate`
  std::vector<erased_share> rules;     ///< a tensor
  std::vector<i64> index;              ///< its place in the updater's list
  tensor_list all, values, gradients;  ///< values and gradients as a step sees them
  std::vector<slab> slots;
  std::vector<tensor_list> working;  ///< the slots as a step sees them
  std::vector<i64> seeded;
  rule_memory memory;
  norm_memory directions;

  /// One pass over its tensors.
  void run(any_executor& e, rule_pass pass, hyper_block const* hyper = nullptr,
           norm_facts const& gradient = {}, norm_facts const& value = {}, bool zero = false) {
    kernel(e.get(), pass, {memory, values, gradients, working, hyper, gradient, value, &directions, zero});
  }
  [[nodiscard]] rule_flags& flags(std::size_t t) const noexcept {
    return *reinterpret_cast<rule_flags*>(memory.entries.host + static_cast<i64>(t) * type->entry_bytes);
  }
};

}  // namespace detail

/// Rules with their slots and counters over one list of tensors: one norm, one finite test, one skip,
/// one pass over memory per type of rule.
///
/// State    slots, updates per tensor (`t` of bias correction, per buffer) and the rate before: all
///          shown by `visit`. Weight slots start as a copy of the parameter at the first step.
/// Cost     a read of the gradient for its norm, then one read and one write of everything.
/// Errors   a non-finite gradient changes nothing at all; the result names the tensor.
/// Choices  a two-pass rule (LAMB) keeps its direction where the gradient was: from a 16-bit wire or a
///          16-bit gradient it is rounded to that type once more.
class updater {
 public:
  using slot_visitor = function_ref<void(slot, tensor_list const&)>;
  using piece_visitor = function_ref<void(std::string const& name, tensor_view, bool is_weight)>;

  updater() = default;
  /// @param values  the parameters, sorted by name: the order fixes the bits of the global norm
  explicit updater(tensor_list values);
  updater(updater&&) = default;
  updater& operator=(updater&&) = default;

  /// Gives tensor `index` to a rule. @pre every tensor gets exactly one, before `allocate`
  void assign(i64 index, detail::erased_rule const& rule, double lr_scale = 1);
  /// @tparam E  the executor that it will run on
  template <class E = host, class R>
    requires(update_rule<R> || std::same_as<R, any_rule>)
  void assign(i64 index, R const& rule, double lr_scale = 1) {
    assign(index, detail::erase_rule<E>(rule), lr_scale);
  }

  /// Allocates the slots. Called once, after the last `assign`.
  /// @throws std::invalid_argument if the executor was not compiled for a rule
  void allocate(any_executor& e);

  /// Copies parameters into weight slots that were never seeded.
  void seed(any_executor& e);

  /// Applies scale · gradients at `rate`, or nothing if an element is not finite. Synchronizes.
  ///
  /// @param zero  also zero the gradients, in the same pass; on a skip too
  step_result step(any_executor& e, tensor_list const& gradients, double rate, double scale, bool zero);

  /// The part of a step that touches tensors: norm, finite test, update; coefficients, rate and scale
  /// are read from executor-side memory. Does not synchronize. @pre seed, mask; the parts prepared
  void launch(any_executor& e, tensor_list const& gradients, bool zero);

  /// Takes what was frozen since into the lists of a step. Does not synchronize.
  void mask(any_executor& e);

  /// What steps read and a kernel may write instead of the host: rate, scale, hold.
  [[nodiscard]] shared_array<hyper_block> const& hyper() const noexcept { return hyper_; }
  /// Norms of the last step's gradients, before `scale`.
  [[nodiscard]] norm_memory const& norms() const noexcept { return norms_; }
  /// Counters and coefficients of the tensors of rule `Rule`, for control functors. @pre there are some
  template <class Rule>
  [[nodiscard]] detail::rule_counters<Rule> counters() const noexcept {
    return detail::counters_in<Rule>(part_of(detail::rule_type_of<Rule>)->memory);
  }
  /// Updates that the state of the tensors of rule `Rule` has seen, in their order; `collect` it first.
  template <class Rule>
  [[nodiscard]] shared_array<i64> seen() const noexcept {
    detail::updater_part const* const p = part_of(detail::rule_type_of<Rule>);
    return p != nullptr ? p->memory.seen : shared_array<i64>{};
  }

  /// Leaves tensor `index` out of norms and updates from now on, or takes it back in. Its state stays.
  void freeze(i64 index, bool frozen) { frozen_[static_cast<std::size_t>(index)] = frozen ? 1 : 0; }
  /// Differs where other tensors are frozen.
  [[nodiscard]] std::uint64_t frozen_hash() const noexcept;
  [[nodiscard]] bool is_frozen(std::size_t index) const noexcept { return frozen_[index] != 0; }

  /// The model that is communicated: masters where a rule keeps them, the parameters elsewhere.
  [[nodiscard]] tensor_list model() const;
  /// Writes masters back into the parameters, rounded to nearest, after a merge changed them.
  void copy_to_parameters(any_executor& e);

  /// Calls f(slot, list) for every slot that is not the model itself.
  void slots(slot_visitor f) const;
  /// Forgets gradient history: moments to zero, so that the next update is the first for bias
  /// correction and dampening. Weight slots stay, and so does all state of frozen tensors.
  void reset_moments(any_executor& e);

  /// Calls f(name, view, is_weight) for every piece of state, in executor-side memory where kernels write.
  void visit(std::string const& prefix, piece_visitor f);
  /// Calls f(tensor, rule, lr_scale) for every tensor; the rule's text tells rules of other hyper-parameters
  /// apart.
  void describe(function_ref<void(std::string_view tensor, std::string_view rule, double lr_scale)> f) const;
  /// Mixes every rule and rate scale into `h`.
  void mix(fingerprint& h) const;

  [[nodiscard]] tensor_list const& values() const noexcept { return values_; }
  [[nodiscard]] i64 elements() const noexcept { return elements_; }
  [[nodiscard]] i64 slot_bytes() const noexcept;

 private:
  [[nodiscard]] detail::updater_part const* part_of(detail::rule_type const& type) const noexcept;
  void mask(any_executor& e, detail::updater_part& p) const;

  tensor_list values_, gradients_;
  std::vector<i64> origin_, frozen_;
  i64 elements_ = 0;
  bool wants_value_norm_ = false;
  tensor_list measured_;  // the model, as norms see it
  shared_array<hyper_block> hyper_;
  norm_memory norms_;
  std::vector<detail::owner<detail::updater_part>> parts_;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/fuse/impl/updater.ipp>
#endif

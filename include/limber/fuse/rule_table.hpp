// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Any update rule as one type: a table of functions for each rule, and for each rule on an executor.

#include <limber/core/box.hpp>
#include <limber/core/fingerprint.hpp>
#include <limber/core/kinds.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/rule_counters.hpp>
#include <limber/fuse/rule_fingerprint.hpp>
#include <limber/fuse/rule_functors.hpp>

#include <concepts>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber {

class host;

namespace detail {

/// Counters and coefficients of the tensors of one rule, in executor-side memory; typed by that rule.
struct rule_memory {
  shared_array<std::byte> entries;       ///< rule_entry<R> a tensor
  shared_array<std::byte> narrow, wide;  ///< coefficients_of<R, float>, <R, double> a tensor
  shared_array<i64> seen;                ///< updates per tensor
  shared_array<double> previous_rate;    ///< η of the last of them
  shared_array<rounding> round;          ///< how the parameter is stored
  shared_array<i64> position;            ///< the tensor's index among all
  shared_array<i64> origin;              ///< index of the tensor's first element
};

/// The same as control functors of rule R see it.
template <update_rule R>
[[nodiscard]] rule_counters<R> counters_in(rule_memory const& m) noexcept {
  return {reinterpret_cast<rule_entry<R>*>(m.entries.device),
          m.seen.device,
          m.previous_rate.device,
          reinterpret_cast<coefficients_of<R, float>*>(m.narrow.device),
          reinterpret_cast<coefficients_of<R, double>*>(m.wide.device),
          m.round.device};
}

/// One update of the tensors of a rule: lists of equal shapes, what is frozen having length 0.
struct rule_update {
  rule_memory const& memory;
  tensor_list const& values;
  tensor_list const& gradients;
  std::vector<tensor_list> const& slots;
  hyper_block const* hyper;
  norm_facts gradient;      ///< of all gradients, before `scale`
  norm_facts value;         ///< of the model, for one-pass rules that need it
  norm_memory* directions;  ///< of two-pass rules
  bool zero;                ///< the gradients are zeroed in the same pass
};

/// What a rule says of itself: one object a type.
struct rule_type {
  slot const* slots;  ///< at most so many:
  int slot_count;
  int master_slot;  ///< −1: none
  bool value_norm, two_pass;
  i64 entry_bytes, narrow_bytes, wide_bytes;
  int (*slots_used)(void const* rule);
  void (*check)(void const* rule);
  void (*mix)(fingerprint&, void const* rule);
  void (*put)(void* entry, void const* rule, double lr_scale);
  std::string_view name;
  type_identity key;

  [[nodiscard]] friend bool operator==(rule_type const& a, rule_type const& b) noexcept {
    return a.key == b.key;
  }
};

/// A rule on an executor: the four things that are done to all its tensors at once.
struct rule_kernels {
  void (*prepare)(void* executor, rule_memory const&, hyper_block const*);
  void (*commit)(void* executor, rule_memory const&, hyper_block const*, norm_facts const&);
  void (*forget)(void* executor, rule_memory const&);
  void (*update)(void* executor, rule_update const&);
};

template <update_rule R>
[[nodiscard]] constexpr int master_slot_of() noexcept {
  if constexpr (has_master<R>)
    return R::master_slot;
  else
    return -1;
}

/// Functions of rule R; not inline, so that the compiled form has those of the library's rules.
template <update_rule R>
struct rule_functions {
  static int slots_used(void const* rule);
  static void check(void const* rule);
  static void mix(fingerprint& h, void const* rule);
  static void put(void* entry, void const* rule, double lr_scale);
};
template <update_rule R>
int rule_functions<R>::slots_used(void const* rule) {
  return limber::slots_used(*static_cast<R const*>(rule));
}
template <update_rule R>
void rule_functions<R>::check(void const* rule) {
  limber::check(*static_cast<R const*>(rule));
}
template <update_rule R>
void rule_functions<R>::mix(fingerprint& h, void const* rule) {
  mix_rule(h, *static_cast<R const*>(rule));
}
template <update_rule R>
void rule_functions<R>::put(void* entry, void const* rule, double lr_scale) {
  static_assert(std::is_trivially_copyable_v<R>, "limber: an update rule must be trivially copyable");
  static_cast<rule_entry<R>*>(entry)->share = {*static_cast<R const*>(rule), lr_scale};
}

template <update_rule R>
inline constexpr rule_type rule_type_of{R::slots.data(),
                                        static_cast<int>(R::slots.size()),
                                        master_slot_of<R>(),
                                        needs_value_norm<R>,
                                        two_pass<R>,
                                        sizeof(rule_entry<R>),
                                        sizeof(coefficients_of<R, float>),
                                        sizeof(coefficients_of<R, double>),
                                        &rule_functions<R>::slots_used,
                                        &rule_functions<R>::check,
                                        &rule_functions<R>::mix,
                                        &rule_functions<R>::put,
                                        type_name<R>(),
                                        type_key<R>};

/// Functions of rule R on executor E.
template <update_rule R, class E>
struct rule_on {
  static void prepare(void* executor, rule_memory const& m, hyper_block const* hyper);
  static void commit(void* executor, rule_memory const& m, hyper_block const* hyper,
                     norm_facts const& gradient);
  static void forget(void* executor, rule_memory const& m);
  static void update(void* executor, rule_update const& u);

 private:
  template <std::size_t K>
  static void dispatch(E& e, rule_update const& u);
  template <std::size_t... J>
  static void with_slots(E& e, rule_update const& u, std::index_sequence<J...>);
  template <std::size_t... J>
  static void apply_direction(E& e, rule_update const& u, step_facts<R> const& facts,
                              std::index_sequence<J...>);
};

template <update_rule R, class E>
void rule_on<R, E>::prepare(void* executor, rule_memory const& m, hyper_block const* hyper) {
  static_cast<E*>(executor)->run(m.seen.n, prepare_rule<R>{counters_in<R>(m), hyper});
}
template <update_rule R, class E>
void rule_on<R, E>::commit(void* executor, rule_memory const& m, hyper_block const* hyper,
                           norm_facts const& gradient) {
  static_cast<E*>(executor)->run(m.seen.n, commit_rule<R>{counters_in<R>(m), hyper, gradient});
}
template <update_rule R, class E>
void rule_on<R, E>::forget(void* executor, rule_memory const& m) {
  static_cast<E*>(executor)->run(m.seen.n, forget_rule<R>{counters_in<R>(m)});
}
template <update_rule R, class E>
void rule_on<R, E>::update(void* executor, rule_update const& u) {
  dispatch<0>(*static_cast<E*>(executor), u);
}

// As many slot operands as the rule uses.
template <update_rule R, class E>
template <std::size_t K>
void rule_on<R, E>::dispatch(E& e, rule_update const& u) {
  constexpr auto slots = std::make_index_sequence<K>{};
  if (K == u.slots.size()) {
    if constexpr (takes_slots<R>(slots))
      return with_slots(e, u, slots);
    else
      throw std::logic_error(text("limber: the rule takes no ", K, " slots, as its slot_count says"));
  }
  if constexpr (K < R::slots.size()) dispatch<K + 1>(e, u);
}

template <update_rule R, class E>
template <std::size_t... J>
void rule_on<R, E>::with_slots(E& e, rule_update const& u, std::index_sequence<J...>) {
  rule_memory const& m = u.memory;
  step_facts<R> const facts{reinterpret_cast<coefficients_of<R, float> const*>(m.narrow.device),
                            reinterpret_cast<coefficients_of<R, double> const*>(m.wide.device),
                            m.position.device,
                            u.hyper,
                            u.gradient,
                            u.value};
  auto const values = inout(u.values, m.round.device, m.origin.device);
  if constexpr (std::same_as<E, host>)
    if (facts.skips()) return u.zero ? e.each(zero{}, out(u.gradients)) : void();
  if constexpr (two_pass<R>) {
    e.measure(*u.directions, direct_source<R>{facts}, inout(u.gradients), in(u.values), inout(u.slots[J])...);
    apply_direction(
        e, u, facts,
        std::make_index_sequence<(sizeof...(J) > slots_spared<R> ? sizeof...(J) - slots_spared<R> : 0)>{});
  } else if (u.zero) {
    e.each(update_source<R>{facts}, values, inout(u.gradients), inout(u.slots[J])...);
  } else {
    e.each(update_source<R>{facts}, values, in(u.gradients), inout(u.slots[J])...);
  }
}

template <update_rule R, class E>
template <std::size_t... J>
void rule_on<R, E>::apply_direction(E& e, rule_update const& u, step_facts<R> const& facts,
                                    std::index_sequence<J...>) {
  auto const values = inout(u.values, u.memory.round.device, u.memory.origin.device);
  norm_facts const direction = u.directions->facts(),
                   value = u.directions->facts(needs_value_norm<R> ? 1 : 0);
  if (u.zero)
    e.each(apply_source<R, true>{facts, direction, value}, values, inout(u.gradients), inout(u.slots[J])...);
  else
    e.each(apply_source<R, false>{facts, direction, value}, values, inout(u.gradients), inout(u.slots[J])...);
}

template <update_rule R, class E>
inline constexpr rule_kernels rule_kernels_of{&rule_on<R, E>::prepare, &rule_on<R, E>::commit,
                                              &rule_on<R, E>::forget, &rule_on<R, E>::update};

/// A rule, its type, and its kernels on one type of executor.
struct erased_rule {
  box rule;
  rule_type const* type = nullptr;
  rule_kernels const* kernels = nullptr;
  type_identity executor{};  ///< type_key of the executor that the kernels are for

  /// @tparam E  where it will run
  template <class E, update_rule R>
  [[nodiscard]] static erased_rule of(R const& r) {
    return {box(std::in_place, r), &rule_type_of<R>, &rule_kernels_of<R, E>, type_key<E>};
  }
};

/// @throws std::invalid_argument for bad hyper-parameters
inline void check_rule(erased_rule const& r) { r.type->check(r.rule.get()); }
inline void mix_rule(fingerprint& h, erased_rule const& r) { r.type->mix(h, r.rule.get()); }

}  // namespace detail
}  // namespace limber

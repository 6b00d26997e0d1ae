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
#include <limber/fuse/rule_functors.hpp>

#include <array>
#include <concepts>
#include <cstddef>
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

/// What is done to all tensors of a rule at once: coefficients, the update, counting it; forgetting all of
/// them.
enum class rule_pass { prepare, update, commit, forget };

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

/// A rule on an executor.
using rule_kernel = void (*)(void* executor, rule_pass, rule_update const&);

template <update_rule R>
[[nodiscard]] constexpr int master_slot_of() noexcept {
  if constexpr (has_master<R>)
    return R::master_slot;
  else
    return -1;
}

/// Mixes in what `rule` does to one made-up element: rules that differ in type or in a
/// hyper-parameter that matters give other bits.
template <update_rule R, std::size_t K = 0>
LIMBER_COLD void mix_rule(fingerprint& h, R const& rule) {
  if (static_cast<std::size_t>(slots_used(rule)) != K) {
    if constexpr (K < R::slots.size()) mix_rule<R, K + 1>(h, rule);
    return;
  }
  constexpr auto indices = std::make_index_sequence<K>{};
  if constexpr (takes_slots<R>(indices)) {
    for (i64 t : {1, 3}) {
      auto c = rule.template at<double>(update_facts{t, 0.5, 0.25});
      if constexpr (uses_norms<R>) c = R::refine(c, norms<double>{2, 300, 4000});
      double const p = 1.25, g = 0.75;
      std::array<double, K + 1> s{};
      for (std::size_t k = 0; k + 1 < s.size(); ++k) s[k] = 0.5 + static_cast<double>(k);
      [&]<std::size_t... J>(std::index_sequence<J...>) {
        if constexpr (two_pass<R>) {
          double const d = R::direction(c, p, g, s[J]...);
          c = R::refine_direction(c, norms<double>{2, 3, 4000});
          s[K] = R::apply(c, p, d, s[J]...);
        } else {
          s[K] = R::update(c, p, g, s[J]...);
        }
      }
      (indices);
      for (double x : s) h.mix(x);
    }
  }
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
LIMBER_COLD int rule_functions<R>::slots_used(void const* rule) {
  return limber::slots_used(*static_cast<R const*>(rule));
}
template <update_rule R>
LIMBER_COLD void rule_functions<R>::check(void const* rule) {
  limber::check(*static_cast<R const*>(rule));
}
template <update_rule R>
LIMBER_COLD void rule_functions<R>::mix(fingerprint& h, void const* rule) {
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

/// Rule R on executor E.
template <update_rule R, class E>
struct rule_on {
  static void run(void* executor, rule_pass pass, rule_update const& u);

 private:
  template <std::size_t K>
  static void dispatch(E& e, rule_update const& u);
  template <std::size_t... J>
  static void with_slots(E& e, rule_update const& u, std::index_sequence<J...>);
  template <std::size_t... J>
  static void apply_direction(E& e, rule_update const& u, step_facts<R> const& facts,
                              std::index_sequence<J...>);
  // The host asks once, for all tensors; other executors where the functor runs.
  template <class Source>
  [[nodiscard]] static auto for_executor(Source const& source) noexcept {
    if constexpr (std::same_as<E, host>)
      return unskipped<Source>{source};
    else
      return source;
  }
};

template <update_rule R, class E>
void rule_on<R, E>::run(void* executor, rule_pass pass, rule_update const& u) {
  E& e = *static_cast<E*>(executor);
  auto const counters = counters_in<R>(u.memory);
  switch (pass) {
    case rule_pass::prepare: return e.run(u.memory.seen.n, prepare_rule<R>{counters, u.hyper});
    case rule_pass::update: return dispatch<0>(e, u);
    case rule_pass::commit: return e.run(u.memory.seen.n, commit_rule<R>{counters, u.hyper, u.gradient});
    case rule_pass::forget: return e.run(u.memory.seen.n, forget_rule<R>{counters});
  }
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
    e.measure(*u.directions, for_executor(direct_source<R>{facts}), inout(u.gradients), in(u.values),
              inout(u.slots[J])...);
    apply_direction(
        e, u, facts,
        std::make_index_sequence<(sizeof...(J) > slots_spared<R> ? sizeof...(J) - slots_spared<R> : 0)>{});
  } else if (u.zero) {
    e.each(for_executor(update_source<R>{facts}), values, inout(u.gradients), inout(u.slots[J])...);
  } else {
    e.each(for_executor(update_source<R>{facts}), values, in(u.gradients), inout(u.slots[J])...);
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
    e.each(for_executor(apply_source<R, true>{facts, direction, value}), values, inout(u.gradients),
           inout(u.slots[J])...);
  else
    e.each(for_executor(apply_source<R, false>{facts, direction, value}), values, inout(u.gradients),
           inout(u.slots[J])...);
}

/// A rule, its type, and its kernel on one type of executor.
struct erased_rule {
  box rule;
  rule_type const* type = nullptr;
  rule_kernel kernel = nullptr;
  type_identity executor{};  ///< type_key of the executor that the kernel is for

  /// @tparam E  where it will run
  template <class E, update_rule R>
  [[nodiscard]] static erased_rule of(R const& r) {
    return {box(std::in_place, r), &rule_type_of<R>, &rule_on<R, E>::run, type_key<E>};
  }
};

/// A rule as a group of tensors carries it.
struct erased_share {
  erased_rule rule;
  double lr_scale = 1;
  std::size_t tensors = 1;
};

/// @throws std::invalid_argument for bad hyper-parameters
inline void check_rule(erased_rule const& r) { r.type->check(r.rule.get()); }
inline void mix_rule(fingerprint& h, erased_rule const& r) { r.type->mix(h, r.rule.get()); }

}  // namespace detail
}  // namespace limber

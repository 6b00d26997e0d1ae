// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One list of all rules, and a driver so plain that it can be believed without a test.

#include <limber/core/dtype.hpp>
#include <limber/rule/rules.hpp>

#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::testing {

/// Every rule, in several configurations, bare and wrapped. A new header in rule/ belongs in here;
/// test/rule/all_rules_test.cpp fails until it is.
[[nodiscard]] constexpr auto all_rules() {
  constexpr auto inside = momentum_form::inside;
  return std::tuple{
      descent{},
      sgd{},
      sgd{.weight_decay = 0.01},
      sgd{.momentum = 0.9},
      sgd{.momentum = 0.9, .weight_decay = 0.01},
      sgd{.momentum = 0.9, .weight_decay = 0.01, .decoupled = true},
      sgd{.momentum = 0.9, .weight_decay = 0.01, .nesterov = true},
      sgd{.momentum = 0.9, .dampening = 0.5},
      sgd{.momentum = 0.9, .weight_decay = 0.01, .form = inside},
      sgd{.momentum = 0.9, .form = inside, .momentum_correction = false},
      sgd{.momentum = 0.9, .nesterov = true, .decoupled = true, .form = inside},
      adam{},
      adam{.beta1 = 0.5, .beta2 = 0.9, .eps = 1e-4, .weight_decay = 0.01},
      adam{.beta1 = 0, .beta2 = 0.25},
      adamw{},
      adamw{.beta1 = 0.95, .beta2 = 0.95, .weight_decay = 0},
      lion{},
      lion{.beta1 = 0.95, .beta2 = 0.98, .weight_decay = 0.1},
      adagrad{},
      adagrad{.lr_decay = 0.01, .weight_decay = 0.01, .initial_accumulator = 0.1, .eps = 1e-6},
      lars{},
      lars{.momentum = 0, .weight_decay = 0.01, .trust_coefficient = 0.01},
      lamb{},
      lamb{.weight_decay = 0, .max_value_norm = 1},
      clipped{sgd{.momentum = 0.9}, 1.0},
      clipped{lars{.weight_decay = 0.01}, 0.5},
      clipped{lamb{}, 0.5},
      clipped{descent{}, 0.25},
      ema{sgd{.momentum = 0.9, .nesterov = true}, 0.99},
      ema{descent{}, 0.3},
      ema{clipped{lion{}, 1.0}, 0.9},
      master{descent{}},
      master{sgd{.momentum = 0.9, .weight_decay = 0.01}},
      master{adamw{}, true, 7},
      master{lars{}},
      clipped{master{sgd{.momentum = 0.9}}, 1.0},
      master{clipped{adamw{}, 1.0}},
      ema{master{lamb{}}, 0.9},
      master{ema{lamb{}, 0.9}},
      clipped{ema{master{lars{.momentum = 0}}, 0.9}, 1.0},
      ema{clipped{master{adagrad{}, true, 3}, 1.0}, 0.5},
  };
}

/// f(rule) for every rule of the list.
template <class F>
void for_each_rule(F f) {
  std::apply([&f](auto const&... rule) { (f(rule), ...); }, all_rules());
}

/// The header that a rule comes from.
constexpr char const* name_of_layer(descent const&) { return "descent"; }
constexpr char const* name_of_layer(sgd const&) { return "sgd"; }
constexpr char const* name_of_layer(adam const&) { return "adam"; }
constexpr char const* name_of_layer(adamw const&) { return "adamw"; }
constexpr char const* name_of_layer(lion const&) { return "lion"; }
constexpr char const* name_of_layer(adagrad const&) { return "adagrad"; }
constexpr char const* name_of_layer(lars const&) { return "lars"; }
constexpr char const* name_of_layer(lamb const&) { return "lamb"; }
template <class R>
constexpr char const* name_of_layer(clipped<R> const&) {
  return "clipped";
}
template <class R>
constexpr char const* name_of_layer(ema<R> const&) {
  return "ema";
}
template <class R>
constexpr char const* name_of_layer(master<R> const&) {
  return "master";
}

/// A rule around another.
template <class R>
concept wraps_a_rule = requires(R r) {
  r.inner;
};

/// The names of a rule's layers, outermost first: {"clipped", "master", "sgd"}.
template <class R>
[[nodiscard]] std::vector<std::string> layers_of(R const& rule) {
  std::vector<std::string> names{name_of_layer(rule)};
  if constexpr (wraps_a_rule<R>)
    for (auto const& name : layers_of(rule.inner)) names.push_back(name);
  return names;
}

/// "clipped master sgd", for messages.
template <class R>
[[nodiscard]] std::string name_of_rule(R const& rule) {
  std::string all;
  for (auto const& name : layers_of(rule)) all += (all.empty() ? "" : " ") + name;
  return all;
}

/// The rule with f applied to its innermost layer.
template <class R, class F>
[[nodiscard]] constexpr R with_innermost(R rule, F f) {
  if constexpr (wraps_a_rule<R>)
    rule.inner = with_innermost(rule.inner, f);
  else
    f(rule);
  return rule;
}

/// The rule without weight decay.
template <class R>
[[nodiscard]] constexpr R without_decay(R rule) {
  return with_innermost(rule, [](auto& inner) {
    if constexpr (requires { inner.weight_decay; }) inner.weight_decay = 0;
  });
}

/// √(Σ x²), added in double.
template <class T>
[[nodiscard]] double plain_norm(std::vector<T> const& x) {
  double sum = 0;
  for (T const v : x) sum += static_cast<double>(v) * static_cast<double>(v);
  return std::sqrt(sum);
}

/// One tensor under one rule: element after element, norms added in double.
///
/// Arithmetic is in T, the parameter is stored as S. An executor does the same, only faster, and takes
/// its norms from a fixed tree; where a rule needs none, every bit must agree.
template <update_rule R, class T, class S = T>
class drive {
 public:
  drive(R rule, std::vector<S> start) : rule_(std::move(rule)), p_(std::move(start)) {
    auto const used = static_cast<std::size_t>(slots_used(rule_));
    slots_.resize(used);
    for (std::size_t k = 0; k < used; ++k)
      for (S const p : p_) slots_[k].push_back(R::slots[k] == slot::weight ? static_cast<T>(p) : T{0});
  }

  /// One update. `total` is ‖g‖ of the whole list; negative: this tensor is the whole list.
  void step(std::vector<T> g, double rate, double total = -1) {
    update_facts const facts{++t_, rate, t_ == 1 ? rate : previous_rate_};
    previous_rate_ = rate;
    auto c = rule_.template at<T>(facts);
    double const own = plain_norm(g);
    norms<T> n{static_cast<T>(plain_norm(model())), static_cast<T>(own),
               static_cast<T>(total < 0 ? own : total)};
    if constexpr (uses_norms<R>) c = R::refine(c, n);
    rounding const how = rounding_of(rule_, t_);
    if constexpr (two_pass<R>) {
      each([&](std::size_t i, auto&... s) { g[i] = R::direction(c, static_cast<T>(p_[i]), g[i], s...); });
      n.gradient = static_cast<T>(plain_norm(g));
      c = R::refine_direction(c, n);
      each([&](std::size_t i, auto&... s) { store(i, R::apply(c, static_cast<T>(p_[i]), g[i], s...), how); });
    } else {
      each(
          [&](std::size_t i, auto&... s) { store(i, R::update(c, static_cast<T>(p_[i]), g[i], s...), how); });
    }
  }

  [[nodiscard]] std::vector<S> const& p() const { return p_; }
  [[nodiscard]] std::vector<T> const& slot(std::size_t k) const { return slots_.at(k); }
  [[nodiscard]] std::size_t slot_count() const { return slots_.size(); }
  [[nodiscard]] i64 t() const { return t_; }

  /// The model in the best precision there is.
  [[nodiscard]] std::vector<T> model() const {
    if constexpr (has_master<R>)
      return slots_[static_cast<std::size_t>(R::master_slot)];
    else {
      std::vector<T> values;
      for (S const p : p_) values.push_back(static_cast<T>(p));
      return values;
    }
  }

 private:
  /// The rule can be called with n slots.
  template <std::size_t... k>
  static constexpr bool accepts(std::index_sequence<k...>) {
    return two_pass<R> ? detail::directs_with<R, T, at_index<k>...>
                       : detail::updates_with<R, T, at_index<k>...>;
  }
  template <std::size_t>
  using at_index = T;

  /// f(i, slots of i…) for every element, with as many slots as there are.
  template <std::size_t n = 0, class F>
  void each(F f) {
    constexpr auto indices = std::make_index_sequence<n>{};
    if (slots_.size() == n) {
      if constexpr (accepts(indices))
        return with_slots(f, indices);
      else
        throw std::logic_error("this rule cannot be called with as many slots as it says it uses");
    }
    if constexpr (n < R::slots.size()) each<n + 1>(f);
  }

  template <class F, std::size_t... k>
  void with_slots(F& f, std::index_sequence<k...>) {
    for (std::size_t i = 0; i < p_.size(); ++i) f(i, slots_[k][i]...);
  }

  void store(std::size_t i, T value, rounding how) {
    if constexpr (std::is_same_v<S, T>)
      p_[i] = value;
    else
      p_[i] = how.stochastic ? S(value, how.bits(static_cast<i64>(i))) : S(value);
  }

  R rule_;
  std::vector<S> p_;
  std::vector<std::vector<T>> slots_;
  i64 t_ = 0;
  double previous_rate_ = 0;
};

}  // namespace limber::testing

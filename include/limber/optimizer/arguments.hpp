// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The arguments of an optimizer, checked one by one: a wrong one is refused in one sentence.

#include <limber/comm/any_communicator.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/any_rule.hpp>
#include <limber/optimizer/groups.hpp>
#include <limber/optimizer/options.hpp>
#include <limber/rule/descent.hpp>
#include <limber/rule/sgd.hpp>
#include <limber/schedule/any_schedule.hpp>
#include <limber/sync/any_strategy.hpp>

#include <concepts>
#include <initializer_list>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::detail {

template <class...>
inline constexpr bool never = false;

/// Does nothing, with any argument.
struct no_op {
  template <class... A>
  void operator()(A const&...) const noexcept {}
};

template <class R>
inline constexpr bool is_rule = update_rule<R> || std::same_as<R, any_rule>;
template <class L>
inline constexpr bool is_rate = schedule<std::decay_t<L>> || std::convertible_to<L, double>;
template <class S>
inline constexpr bool is_strategy = sync::strategy<S> || std::same_as<S, sync::any_strategy>;

/// True if R can be updated with as many of its slots as it may use.
template <class R>
[[nodiscard]] constexpr bool has_update() {
  if constexpr (std::same_as<R, any_rule>)
    return true;
  else
    return []<std::size_t... K>(std::index_sequence<K...>) {
      return (takes_slots<R>(std::make_index_sequence<K>{}) || ...);
    }
  (std::make_index_sequence<R::slots.size() + 1>{});
}

// The checks below return true if an optimizer can be made of such arguments. Else they do not compile, and
// say why in one sentence; what depends on them is not instantiated then, so that nothing more is reported.

/// The place of the first that is false; −1: none is.
[[nodiscard]] constexpr int first_wrong(std::initializer_list<bool> right) {
  int k = 0;
  for (bool const one : right) {
    if (!one) return k;
    ++k;
  }
  return -1;
}

template <class R>
constexpr bool expect_update() {
  static_assert(has_update<R>(),
                "limber: optimizer: the rule has no update(...) that takes its coefficients, a parameter, "
                "a gradient and its slots, as include/limber/rule/rule.hpp says");
  return has_update<R>();
}

/// The rule of all parameters, followed by `L`.
template <class R, class L>
constexpr bool expect_rule() {
  constexpr int wrong = first_wrong({is_rule<R> || !is_rate<R> || !is_rule<L>, is_rule<R>});
  static_assert(wrong != 0,
                "limber: optimizer: rule and schedule are swapped; the 2nd argument is the update rule, the "
                "3rd the schedule");
  static_assert(wrong != 1,
                "limber: optimizer: the 2nd argument is no update rule: it needs `slots`, at<T>(facts) and "
                "update(...), as include/limber/rule/rule.hpp says");
  if constexpr (wrong < 0) return expect_update<R>();
  return false;
}

template <class G>
struct group_facts {
  static constexpr bool is_group = std::same_as<G, buffers>;
  using rule = any_rule;
};
template <class R>
struct group_facts<parameter_group<R>> {
  static constexpr bool is_group = true;
  using rule = R;
};

template <class... G>
constexpr bool expect_groups(parameter_groups<G...> const*) {
  constexpr int wrong =
      first_wrong({(group_facts<G>::is_group && ...), (is_rule<typename group_facts<G>::rule> && ...)});
  static_assert(wrong != 0,
                "limber: optimizer: groups(...) takes limber::parameter_group{tensors, rule} and "
                "limber::buffers{tensors}; one of its arguments is neither");
  static_assert(wrong != 1,
                "limber: optimizer: the rule of a group is no update rule: it needs `slots`, at<T>(facts) "
                "and update(...), as include/limber/rule/rule.hpp says");
  if constexpr (wrong < 0) return (expect_update<typename group_facts<G>::rule>() && ...);
  return false;
}
template <class R>
constexpr bool expect_groups(std::vector<parameter_group<R>> const*) {
  return expect_groups(static_cast<parameter_groups<parameter_group<R>> const*>(nullptr));
}

template <class>
inline constexpr bool is_groups = false;
template <class... G>
inline constexpr bool is_groups<parameter_groups<G...>> = true;
template <class R>
inline constexpr bool is_groups<std::vector<parameter_group<R>>> = true;
/// Groups that carry their rules.
template <class P>
concept groups_of_parameters = is_groups<P>;

/// What a strategy needs of a collective, where its type says so; of `one`, at least one.
struct strategy_needs {
  capabilities all = 0, one = 0;
};
template <class S>
[[nodiscard]] constexpr strategy_needs needs_of() noexcept {
  strategy_needs n;
  if constexpr (requires { capabilities{S::needs}; }) n.all = S::needs;
  if constexpr (requires { capabilities{S::needs_one_of}; }) n.one = S::needs_one_of;
  return n;
}

template <class S, class C>
constexpr bool expect_capabilities() {
  if constexpr (!std::same_as<C, communicator> && !std::same_as<C, any_communicator>) {
    constexpr strategy_needs needs = needs_of<S>();
    constexpr capabilities missing = needs.all & ~capabilities_of<C>;
    constexpr int wrong =
        first_wrong({(missing & can_post) == 0, (missing & can_send_receive) == 0, (missing & can_split) == 0,
                     missing == 0, needs.one == 0 || (needs.one & capabilities_of<C>) != 0});
    static_assert(wrong != 0,
                  "limber: optimizer: this strategy needs a mailbox (post, poll, listen), which the "
                  "communicator has not");
    static_assert(wrong != 1,
                  "limber: optimizer: this strategy needs messages between two ranks (send, recv), which the "
                  "communicator has not");
    static_assert(wrong != 2,
                  "limber: optimizer: this strategy needs a communicator that can be split into groups "
                  "(split), which this one cannot");
    static_assert(
        wrong != 3,
        "limber: optimizer: the strategy's `needs` names a capability that the communicator has not");
    static_assert(
        wrong != 4,
        "limber: optimizer: this strategy needs one of the capabilities in its `needs_one_of`, such "
        "as messages between two ranks (send, recv) or a mailbox (post, poll, listen); the "
        "communicator has none of them");
    return wrong < 0;
  }
  return true;
}

/// What all constructors have: schedule, strategy, communicator, executor.
template <class L, class S, class C, class E>
constexpr bool expect_parts() {
  using comm = std::remove_cvref_t<C>;
  constexpr int wrong = first_wrong(
      {!is_strategy<L> || !is_rate<S>, is_rate<L>, !collective<S> || !is_strategy<comm>, is_strategy<S>,
       collective<comm>, std::is_lvalue_reference_v<C> || std::same_as<comm, communicator>,
       std::constructible_from<communicator, C>, std::same_as<E, host> || executor<E>});
  static_assert(wrong != 0, "limber: optimizer: schedule and strategy are swapped; the schedule comes first");
  static_assert(wrong != 1,
                "limber: optimizer: the schedule, the argument before the strategy, is none: it must be a "
                "number, or callable with a limber::progress const& and return one, for example "
                "[](limber::progress const& p) { return 0.1 / (1 + p.steps); }");
  static_assert(wrong != 2,
                "limber: optimizer: strategy and communicator are swapped; the strategy comes first");
  static_assert(wrong != 3,
                "limber: optimizer: the strategy, the argument before the communicator, is none: it needs a "
                "const member parts() that returns a limber::sync::exchange, as "
                "include/limber/sync/any_strategy.hpp says");
  static_assert(wrong != 4,
                "limber: optimizer: the communicator models no limber::collective: it needs rank, size, "
                "all_reduce, reduce_scatter, all_gather, broadcast and barrier, as "
                "include/limber/comm/collective.hpp says");
  static_assert(wrong != 5,
                "limber: optimizer: the communicator is a temporary that is gone after this line; keep it in "
                "a variable that outlives the optimizer");
  static_assert(wrong != 6, "limber: optimizer: the communicator is const, and communicating changes it");
  static_assert(wrong != 7,
                "limber: optimizer: the last argument is no executor: it needs make, each, measure, norm, "
                "report, run, share, publish, collect, record and wait, as "
                "include/limber/fuse/executor.hpp says");
  if constexpr (wrong < 0) return expect_capabilities<S, comm>();
  return false;
}

/// Four arguments in front of the options, of which `Last` is the last: one of them was left out.
template <bool HasRule, class R, class L, class Last>
constexpr void refuse_missing() {
  constexpr int wrong = first_wrong({collective<Last>, !HasRule || is_rule<R>, !is_strategy<L>, never<R>});
  static_assert(wrong != 0, "limber: optimizer: the communicator is missing; it follows the strategy");
  static_assert(wrong != 1, "limber: optimizer: the rule is missing; it follows the parameters");
  static_assert(wrong != 2, "limber: optimizer: the schedule is missing; it precedes the strategy");
  static_assert(wrong != 3, "limber: optimizer: the strategy is missing; it precedes the communicator");
}

/// False if no constructor takes parameters of type P, with `Fifth` as the fifth argument and `Sixth` as the
/// sixth.
template <class P, class Fifth, class Sixth>
inline constexpr bool is_taken =
    is_groups<P> ? std::convertible_to<Fifth, options>
                 : std::convertible_to<P const&, std::vector<tensor>>&& std::convertible_to<Sixth, options>;

template <class P, class Second>
constexpr void refuse_parameters() {
  constexpr bool known = is_groups<P> || std::convertible_to<P const&, std::vector<tensor>>;
  constexpr int wrong = first_wrong({!is_groups<P> || !is_rule<Second>, !known, never<P>});
  static_assert(wrong != 0, "limber: optimizer: groups carry their rules; leave out the 2nd argument");
  static_assert(wrong != 1,
                "limber: optimizer: what follows the communicator are limber::options, and after them an "
                "executor: {}, limber::host{4}");
  static_assert(
      wrong != 2,
      "limber: optimizer: the 1st argument is no list of parameters: it must be a "
      "std::vector<limber::tensor>, a std::vector<limber::parameter_group<...>> or limber::groups(...)");
}

/// @tparam E  the executor
template <class E, class R>
[[nodiscard]] erased_groups one_group(std::vector<tensor> parameters, R const& rule) {
  erased_groups all;
  all.groups.push_back({erase_rule<E>(rule), 1, parameters.size()});
  all.tensors = std::move(parameters);
  return all;
}
template <class E, class R>
[[nodiscard]] erased_groups erase_groups(std::vector<parameter_group<R>> const& list) {
  erased_groups all;
  for (auto const& g : list) all.add<E>(g);
  return all;
}
template <class E, class... G>
[[nodiscard]] erased_groups erase_groups(parameter_groups<G...> const& list) {
  erased_groups all;
  std::apply([&](auto const&... g) { (all.add<E>(g), ...); }, list.of);
  return all;
}

/// Compiles the rules of the library's merges for executors other than the host.
template <class E>
[[nodiscard]] any_executor executor_for(E e) {
  any_executor out(std::move(e));
  out.learn<descent, E>();
  out.learn<sgd, E>();
  return out;
}

}  // namespace limber::detail

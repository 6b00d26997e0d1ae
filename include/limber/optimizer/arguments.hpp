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
  if constexpr (is_rule<R>) {
    return expect_update<R>();
  } else if constexpr (is_rate<R> && is_rule<L>) {
    static_assert(never<R>,
                  "limber: optimizer: rule and schedule are swapped; the 2nd argument is the update rule, "
                  "the 3rd the schedule");
    return false;
  } else {
    static_assert(never<R>,
                  "limber: optimizer: the 2nd argument is no update rule: it needs `slots`, at<T>(facts) "
                  "and update(...), as include/limber/rule/rule.hpp says");
    return false;
  }
}

template <class G>
inline constexpr bool is_group = std::same_as<G, buffers>;
template <class R>
inline constexpr bool is_group<group<R>> = true;

template <class G>
struct rule_of {
  using type = any_rule;
};
template <class R>
struct rule_of<group<R>> {
  using type = R;
};

template <class... G>
constexpr bool expect_groups() {
  if constexpr (!(is_group<G> && ...)) {
    static_assert(never<G...>,
                  "limber: optimizer: groups(...) takes limber::group{tensors, rule} and "
                  "limber::buffers{tensors}; one of its arguments is neither");
    return false;
  } else if constexpr (!(is_rule<typename rule_of<G>::type> && ...)) {
    static_assert(never<G...>,
                  "limber: optimizer: the rule of a group is no update rule: it needs `slots`, "
                  "at<T>(facts) and update(...), as include/limber/rule/rule.hpp says");
    return false;
  } else {
    return (expect_update<typename rule_of<G>::type>() && ...);
  }
}

/// What a strategy needs of a collective, where its type says so.
template <class S>
[[nodiscard]] constexpr capabilities needed_by() noexcept {
  if constexpr (requires {
                  { S::needs } -> std::convertible_to<capabilities>;
                })
    return S::needs;
  else
    return 0;
}
/// The same, of which it needs at least one; 0: nothing.
template <class S>
[[nodiscard]] constexpr capabilities one_needed_by() noexcept {
  if constexpr (requires {
                  { S::needs_one_of } -> std::convertible_to<capabilities>;
                })
    return S::needs_one_of;
  else
    return 0;
}

template <class S, class C>
constexpr bool expect_capabilities() {
  constexpr bool unknown = std::same_as<C, communicator> || std::same_as<C, any_communicator>;
  constexpr capabilities has = unknown ? ~capabilities{0} : capabilities_of<C>;
  constexpr capabilities missing = needed_by<S>() & ~has;
  constexpr capabilities one_of = one_needed_by<S>();
  if constexpr ((missing & can_post) != 0) {
    static_assert(never<C>,
                  "limber: optimizer: this strategy needs a mailbox (post, poll, listen), which the "
                  "communicator has not");
    return false;
  } else if constexpr ((missing & can_send_receive) != 0) {
    static_assert(never<C>,
                  "limber: optimizer: this strategy needs messages between two ranks (send, recv), which "
                  "the communicator has not");
    return false;
  } else if constexpr ((missing & can_split) != 0) {
    static_assert(never<C>,
                  "limber: optimizer: this strategy needs a communicator that can be split into groups "
                  "(split), which this one cannot");
    return false;
  } else if constexpr (missing != 0) {
    static_assert(never<C>,
                  "limber: optimizer: the strategy's `needs` names a capability that the communicator has "
                  "not");
    return false;
  } else if constexpr (one_of != 0 && (one_of & has) == 0) {
    static_assert(never<C>,
                  "limber: optimizer: this strategy needs one of the capabilities in its `needs_one_of`, "
                  "such as messages between two ranks (send, recv) or a mailbox (post, poll, listen); the "
                  "communicator has none of them");
    return false;
  } else {
    return true;
  }
}

/// What all constructors have: schedule, strategy, communicator, executor.
template <class L, class S, class C, class E>
constexpr bool expect_parts() {
  using comm = std::remove_cvref_t<C>;
  if constexpr (is_strategy<L> && is_rate<S>) {
    static_assert(never<L>, "limber: optimizer: schedule and strategy are swapped; the schedule comes first");
    return false;
  } else if constexpr (!is_rate<L>) {
    static_assert(never<L>,
                  "limber: optimizer: the schedule, the argument before the strategy, is none: it must be a "
                  "number, or callable with a limber::progress const& and return one, for example "
                  "[](limber::progress const& p) { return 0.1 / (1 + p.steps); }");
    return false;
  } else if constexpr (collective<S> && is_strategy<comm>) {
    static_assert(never<S>,
                  "limber: optimizer: strategy and communicator are swapped; the strategy comes first");
    return false;
  } else if constexpr (!is_strategy<S>) {
    static_assert(never<S>,
                  "limber: optimizer: the strategy, the argument before the communicator, is none: it needs "
                  "a const member parts() that returns a limber::sync::exchange, as "
                  "include/limber/sync/any_strategy.hpp says");
    return false;
  } else if constexpr (!collective<comm>) {
    static_assert(never<C>,
                  "limber: optimizer: the communicator models no limber::collective: it needs rank, size, "
                  "all_reduce, reduce_scatter, all_gather, broadcast and barrier, as "
                  "include/limber/comm/collective.hpp says");
    return false;
  } else if constexpr (!std::is_lvalue_reference_v<C> && !std::same_as<comm, communicator>) {
    static_assert(never<C>,
                  "limber: optimizer: the communicator is a temporary that is gone after this line; keep "
                  "it in a variable that outlives the optimizer");
    return false;
  } else if constexpr (!std::constructible_from<communicator, C>) {
    static_assert(never<C>, "limber: optimizer: the communicator is const, and communicating changes it");
    return false;
  } else if constexpr (!std::same_as<E, host> && !executor<E>) {
    static_assert(never<E>,
                  "limber: optimizer: the last argument is no executor: it needs make, each, measure, norm, "
                  "report, run, share, publish, collect, record and wait, as "
                  "include/limber/fuse/executor.hpp says");
    return false;
  } else {
    return expect_capabilities<S, comm>();
  }
}

/// Four arguments in front of the options, of which `Last` is the last: one of them was left out.
template <bool HasRule, class R, class L, class Last>
constexpr void refuse_missing() {
  if constexpr (!collective<Last>)
    static_assert(never<R>,
                  "limber: optimizer: the communicator is missing; the arguments are parameters, rule, "
                  "schedule, strategy, communicator, and then options");
  else if constexpr (HasRule && !is_rule<R>)
    static_assert(never<R>,
                  "limber: optimizer: the rule is missing; the arguments are parameters, rule, schedule, "
                  "strategy, communicator, and then options");
  else if constexpr (is_strategy<L>)
    static_assert(never<L>,
                  "limber: optimizer: the schedule is missing; the arguments are parameters, rule, "
                  "schedule, strategy, communicator, and then options");
  else
    static_assert(never<L>,
                  "limber: optimizer: the strategy is missing; the arguments are parameters, rule, "
                  "schedule, strategy, communicator, and then options");
}

template <class... G>
void as_groups(parameter_groups<G...> const&);
template <class R>
void as_groups(std::vector<group<R>> const&);
template <class P>
inline constexpr bool is_groups = requires(P const& p) {
  as_groups(p);
};

/// False if no constructor takes parameters of type P, with `Fifth` as the fifth argument and `Sixth` as the
/// sixth.
template <class P, class Fifth, class Sixth>
inline constexpr bool is_taken =
    is_groups<P> ? std::convertible_to<Fifth, options>
                 : std::convertible_to<P const&, std::vector<tensor>>&& std::convertible_to<Sixth, options>;

template <class P, class Second>
constexpr void refuse_parameters() {
  if constexpr (is_groups<P> && is_rule<Second>)
    static_assert(never<P>, "limber: optimizer: groups carry their rules; leave out the 2nd argument");
  else if constexpr (is_groups<P> || std::convertible_to<P const&, std::vector<tensor>>)
    static_assert(never<P>,
                  "limber: optimizer: what follows the communicator are limber::options, and after them an "
                  "executor: {}, limber::host{4}");
  else
    static_assert(never<P>,
                  "limber: optimizer: the 1st argument is no list of parameters: it must be a "
                  "std::vector<limber::tensor>, a std::vector<limber::group<...>> or limber::groups(...)");
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
[[nodiscard]] erased_groups erase_groups(std::vector<group<R>> const& list) {
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

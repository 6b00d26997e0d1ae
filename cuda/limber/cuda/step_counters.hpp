// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The counters of a fused step's rules, as its control kernel sees them.

#include <limber/cuda/advance.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/rule/rule.hpp>

#include <tuple>
#include <type_traits>

namespace limber::gpu {

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

inline void fill_counters(counters_of<>&, updater const&) {}
template <class First, class... Rest>
void fill_counters(counters_of<First, Rest...>& out, updater const& u) {
  out.counters = u.counters<First>();
  out.tensors = u.seen<First>().n;
  fill_counters(out.rest, u);
}

template <class Rules>
struct counters_for;
template <class... R>
struct counters_for<std::tuple<R...>> {
  using type = counters_of<R...>;
};

}  // namespace detail

/// The rule types of groups, each once, as a tuple.
template <class... R>
using rules_of_groups = typename detail::unique_rules<std::tuple<>, R...>::type;

/// The counters of all rules of an updater, for a control kernel. @tparam Rules  a tuple of their types
template <class Rules>
[[nodiscard]] typename detail::counters_for<Rules>::type step_counters(updater const& u) {
  typename detail::counters_for<Rules>::type out{};
  detail::fill_counters(out, u);
  return out;
}

}  // namespace limber::gpu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Groups of parameters as one argument: groups of different rules, and buffers, side by side.

#include <limber/core/tensor.hpp>
#include <limber/rule/rule.hpp>

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber {

/// Groups of any rules. Made by `groups(…)`.
template <class... R>
struct parameter_groups {
  std::tuple<std::vector<group<R>>...> of;  ///< one vector per argument
  std::vector<tensor> buffers;
};

namespace detail {

template <class R>
auto as_tuple(group<R> g) {
  return std::tuple<std::vector<group<R>>>{std::vector<group<R>>{std::move(g)}};
}
inline std::tuple<> as_tuple(buffers const&) { return {}; }

template <class... R>
parameter_groups<R...> make_groups(std::tuple<std::vector<group<R>>...> of, std::vector<tensor> b) {
  return {std::move(of), std::move(b)};
}

}  // namespace detail

namespace detail {

// Gives every registered tensor the rule of its group; `place` says where the k-th stands in the updater.
template <class Updater, class... R>
void assign_rules(Updater& to, parameter_groups<R...> const& from, std::vector<i64> const& place) {
  std::size_t registered = 0;
  auto add = [&](auto const& list) {
    for (auto const& g : list)
      for (std::size_t k = 0; k < g.tensors.size(); ++k) to.assign(place[registered++], g.rule, g.lr_scale);
  };
  std::apply([&](auto const&... of) { (add(of), ...); }, from.of);
}

}  // namespace detail

/// Puts groups of different rules, and buffers, into one optimizer: one plan, one norm, one skip.
///
///     groups(group{matrices, lamb{}}, group{biases, sgd{.momentum = 0.9}}, buffers{statistics})
template <class... Group>
[[nodiscard]] auto groups(Group const&... each) {
  std::vector<tensor> b;
  auto collect = [&](auto const& g) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(g)>, buffers>)
      b.insert(b.end(), g.tensors.begin(), g.tensors.end());
  };
  (collect(each), ...);
  return detail::make_groups(std::tuple_cat(detail::as_tuple(each)...), std::move(b));
}

}  // namespace limber

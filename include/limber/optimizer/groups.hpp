// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Groups of parameters as one argument: groups of different rules, and buffers, side by side.

#include <limber/core/tensor.hpp>
#include <limber/fuse/any_rule.hpp>

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber {

/// Groups of any rules. Made by `groups(…)`.
template <class... Group>
struct parameter_groups {
  std::tuple<Group...> of;
};

/// Puts groups of different rules, and buffers, into one optimizer: one plan, one norm, one skip.
///
///     groups(parameter_group{matrices, lamb{}}, parameter_group{biases, sgd{.momentum = 0.9}},
///     buffers{statistics})
template <class... Group>
[[nodiscard]] parameter_groups<Group...> groups(Group const&... each) {
  return {{each...}};
}

namespace detail {

/// All groups of an optimizer, whatever their rules.
struct erased_groups {
  std::vector<tensor> tensors, buffers;
  std::vector<erased_share> groups;

  /// @tparam E  the executor
  template <class E, class R>
  void add(limber::parameter_group<R> const& g) {
    for (auto const& t : g.tensors) tensors.push_back(t);
    groups.push_back({erase_rule<E>(g.rule), g.lr_scale, g.tensors.size()});
  }
  template <class E>
  void add(limber::buffers const& b) {
    for (auto const& t : b.tensors) buffers.push_back(t);
  }
};

}  // namespace detail
}  // namespace limber

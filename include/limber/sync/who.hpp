// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// With whom something is exchanged: a group made from the optimizer's collective.

#include <limber/comm/collective.hpp>
#include <limber/comm/self.hpp>

#include <tuple>
#include <type_traits>
#include <utility>

namespace limber::sync {

/// All workers.
struct everyone {
  static constexpr bool agreed = true;  ///< all ranks see the same outcome
  template <collective C>
  [[nodiscard]] C& of(C& comm) const noexcept {
    return comm;
  }
};

/// Nobody: each worker on its own.
struct alone {
  static constexpr bool agreed = false;
  template <collective C>
  [[nodiscard]] self of(C&) const {
    return {};
  }
};

/// The group that `Who` makes of C: a reference to C itself, or a group of its own.
template <class Who, class C>
using group_of = std::tuple<decltype(std::declval<Who const&>().of(std::declval<C&>()))>;

/// The collective that operations of that group are called on.
template <class Who, class C>
using group_type = std::remove_reference_t<std::tuple_element_t<0, group_of<Who, C>>>;

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// With whom something is exchanged: a group made from the optimizer's collective.

#include <limber/comm/collective.hpp>
#include <limber/comm/self.hpp>
#include <limber/core/error.hpp>

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

/// Runs of `size` neighbouring ranks, the last of which may be shorter: the workers of one machine.
struct block {
  static constexpr bool agreed = false;
  int size;

  explicit block(int n) : size(n) { expects(n >= 1, "block: size must be at least 1, got ", n); }
  /// A collective call of all ranks of `comm`.
  template <collective C>
  [[nodiscard]] auto of(C& comm) const {
    static_assert(splittable<C>, "limber: blocks need a collective that models limber::splittable");
    return comm.split(comm.rank() / size);
  }
};

/// The group that `Who` makes of C: a reference to C itself, or a group of its own.
template <class Who, class C>
using group_of = std::tuple<decltype(std::declval<Who const&>().of(std::declval<C&>()))>;

/// The collective that operations of that group are called on.
template <class Who, class C>
using group_type = std::remove_reference_t<std::tuple_element_t<0, group_of<Who, C>>>;

}  // namespace limber::sync

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Several objects with state as one, to save and load them together.

#include <limber/core/state_piece.hpp>

#include <string>
#include <tuple>
#include <type_traits>

namespace limber::state {

/// A named trivially copyable value in host memory: the state of a sampler or random generator.
template <class T>
  requires std::is_trivially_copyable_v<T>
struct block {
  std::string name;
  T& value;
  kept how = kept::replicated;

  template <class F>
  void visit(F const& f) {
    f(block_piece(name, value, how));
  }
};
template <class T>
block(char const*, T&) -> block<T>;
template <class T>
block(char const*, T&, kept) -> block<T>;

/// Visits the pieces of all parts, in their order.
///
///     sampler_state position = data.state();
///     state::composite_state all{opt, state::block{"sampler", position}};
///     save(all, folder, {.step = opt.now().calls});
template <class... V>
struct composite_state {
  std::tuple<V...> of;  ///< references to lvalues, copies of rvalues

  explicit composite_state(V&&... each) : of(std::forward<V>(each)...) {}

  template <class F>
  void visit(F const& f) {
    std::apply([&](auto&... each) { (each.visit(f), ...); }, of);
  }
};
template <class... V>
composite_state(V&&...) -> composite_state<V...>;

}  // namespace limber::state

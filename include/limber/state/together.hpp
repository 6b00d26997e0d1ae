// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Several things that have state as one, so that they are saved and loaded together.

#include <limber/core/state_piece.hpp>

#include <string>
#include <tuple>
#include <type_traits>

namespace limber::state {

/// A control block of the host's under a name: a sampler's state, a random generator's.
template <class T>
  requires std::is_trivially_copyable_v<T>
struct block {
  std::string name;
  T& value;
  kept how = kept::alike;

  template <class F>
  void visit(F const& f) {
    f(block_piece(name, value, how));
  }
};
template <class T>
block(char const*, T&) -> block<T>;
template <class T>
block(char const*, T&, kept) -> block<T>;

/// Shows what each of them shows, in their order.
///
///     sampler_state dealt = data.state();
///     state::together all{opt, state::block{"sampler", dealt}};
///     save(all, folder, {.step = opt.now().calls});
template <class... V>
struct together {
  std::tuple<V...> of;  ///< references to what was given by name, copies of what was not

  explicit together(V&&... each) : of(std::forward<V>(each)...) {}

  template <class F>
  void visit(F const& f) {
    std::apply([&](auto&... each) { (each.visit(f), ...); }, of);
  }
};
template <class... V>
together(V&&...) -> together<V...>;

}  // namespace limber::state

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a strategy is, and any strategy as one type, to be chosen while a program runs.

#include <limber/sync/exchange.hpp>

#include <concepts>

namespace limber::sync {

/// A value with `parts()` that say what it does: an exchange of stages. A preset of this library or your own,
/// for which examples/own_strategy.hpp is a template.
///
///     static constexpr capabilities needs, needs_one_of     optional: what the communicator has to offer
///
/// What a type says that it needs is asked for at compile time; what only its stages say, or what is in an
/// any_strategy, when the optimizer is made.
template <class S>
concept strategy = std::copyable<S> && requires(S const& s) {
  { s.parts() } -> std::convertible_to<exchange>;
};

/// Holds any strategy.
///
///     sync::any_strategy how = workers_are_far ? sync::any_strategy(sync::diloco{}) : sync::allreduce{};
class any_strategy {
 public:
  template <class S>
    requires(!std::same_as<S, any_strategy> && strategy<S>)
  any_strategy(S const& s) : parts_(s.parts()) {}

  [[nodiscard]] exchange const& parts() const noexcept { return parts_; }

 private:
  exchange parts_;
};

}  // namespace limber::sync

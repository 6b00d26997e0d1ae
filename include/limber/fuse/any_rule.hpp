// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Any update rule as one type, to be chosen while a program runs.

#include <limber/fuse/host.hpp>
#include <limber/fuse/rule_table.hpp>

#include <concepts>

namespace limber {

/// Holds a rule, with its kernels on the host.
///
///     any_rule rule = flags.adam ? any_rule(adamw{}) : sgd{.momentum = 0.9};
///     optimizer opt{parameters, rule, rate, strategy, comm};
///
/// Errors   std::invalid_argument, when an optimizer is made, if its executor is not the host: there the
/// rule's
///          own type must be given.
class any_rule {
 public:
  template <class R>
    requires(!std::same_as<R, any_rule> && update_rule<R>)
  any_rule(R const& rule) : rule_(detail::erased_rule::of<host>(rule)) {}

  [[nodiscard]] detail::erased_rule const& erased() const noexcept { return rule_; }

 private:
  detail::erased_rule rule_;
};

namespace detail {

/// A rule or an any_rule, for executor E.
template <class E, class R>
[[nodiscard]] erased_rule erase_rule(R const& rule) {
  if constexpr (std::same_as<R, any_rule>)
    return rule.erased();
  else
    return erased_rule::of<E>(rule);
}

}  // namespace detail
}  // namespace limber

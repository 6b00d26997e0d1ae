// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The compiled form: kernels of the library's rules on the host are in the library.

#include <limber/fuse/any_rule.hpp>
#include <limber/rule/rules.hpp>

namespace limber::detail {

#if defined(LIMBER_SOURCE)
#define LIMBER_RULE(...)                       \
  template struct rule_functions<__VA_ARGS__>; \
  template struct rule_on<__VA_ARGS__, host>;
#else
#define LIMBER_RULE(...)                              \
  extern template struct rule_functions<__VA_ARGS__>; \
  extern template struct rule_on<__VA_ARGS__, host>;
#endif
LIMBER_RULE(sgd)
LIMBER_RULE(adam)
LIMBER_RULE(adamw)
LIMBER_RULE(lion)
LIMBER_RULE(adagrad)
LIMBER_RULE(lars)
LIMBER_RULE(lamb)
LIMBER_RULE(descent)
// The wrappers that most trainers use; others are compiled where they are.
LIMBER_RULE(clipped<sgd>)
LIMBER_RULE(clipped<adamw>)
LIMBER_RULE(master<sgd>)
LIMBER_RULE(master<adamw>)

#undef LIMBER_RULE

}  // namespace limber::detail

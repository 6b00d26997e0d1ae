// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The library's operations on lists of tensors, each with a number: what an executor is compiled for once.

#include <limber/fuse/executor.hpp>
#include <limber/fuse/rule_functors.hpp>
#include <limber/fuse/strategy_functors.hpp>

namespace limber::detail {

/// Functor F over operands A: for `each`, or with norms of what it returns for `measure`.
template <class F, access_mode... A>
struct each_of {};
template <class F, access_mode... A>
struct measure_of {};

template <class... Operation>
struct operation_list {};

/// What strategies, updaters and the handshake are made of.
using list_operations = operation_list<
    each_of<zero, access_mode::out>, each_of<copy, access_mode::out, access_mode::in>,
    each_of<scaled_copy, access_mode::out, access_mode::in>,
    each_of<accumulate, access_mode::inout, access_mode::in>,
    each_of<step_back, access_mode::out, access_mode::in, access_mode::in>,
    each_of<blend, access_mode::inout, access_mode::in>,
    each_of<pack_with_error, access_mode::out, access_mode::inout, access_mode::in>,
    each_of<sync::half_and_half, access_mode::inout, access_mode::in>,
    each_of<sync::ratio, access_mode::out, access_mode::in>,
    each_of<sync::join_halves, access_mode::out, access_mode::out, access_mode::in, access_mode::in>,
    each_of<sync::add_weighted, access_mode::inout, access_mode::in>, measure_of<identity, access_mode::in>,
    measure_of<gradient_and_value, access_mode::in, access_mode::in>,
    measure_of<pack, access_mode::out, access_mode::inout>,
    measure_of<pack, access_mode::inout, access_mode::inout>,
    measure_of<pack, access_mode::out, access_mode::in, access_mode::inout>,
    measure_of<pack_with_error, access_mode::out, access_mode::inout, access_mode::in, access_mode::inout>,
    measure_of<pack_with_error, access_mode::out, access_mode::out, access_mode::in, access_mode::inout>,
    measure_of<difference, access_mode::out, access_mode::in, access_mode::in>,
    measure_of<weighted, access_mode::out, access_mode::in>,
    measure_of<sync::follow, access_mode::out, access_mode::in, access_mode::in>,
    measure_of<sync::pull_centre, access_mode::inout, access_mode::inout>,
    measure_of<sync::delay_compensation, access_mode::out, access_mode::in, access_mode::in, access_mode::in>,
    measure_of<sync::adaptive_delay_compensation, access_mode::out, access_mode::in, access_mode::in,
               access_mode::in, access_mode::in, access_mode::out>>;

/// What an updater alone needs: for executors that are used without a strategy.
using update_operations =
    operation_list<each_of<zero, access_mode::out>, each_of<copy, access_mode::out, access_mode::in>,
                   measure_of<identity, access_mode::in>,
                   measure_of<gradient_and_value, access_mode::in, access_mode::in>>;

template <class Operation, class List>
inline constexpr int operation_index = -1;
template <class Operation, class... All>
inline constexpr int operation_index<Operation, operation_list<All...>> = [] {
  int at = -1, k = 0;
  ((at = __is_same(Operation, All) ? k : at, ++k), ...);
  return at;
}();

/// The number of an operation; −1 for one that is not in the list.
template <class Operation>
inline constexpr int operation_number = operation_index<Operation, list_operations>;

}  // namespace limber::detail

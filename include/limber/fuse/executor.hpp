// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The contract of an executor: the only place that touches tensor memory.

#include <limber/core/norm.hpp>
#include <limber/core/random.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/layout.hpp>

#include <concepts>
#include <type_traits>
#include <vector>

namespace limber {

enum class access { in, out, inout };

/// A list handed to an executor, with what happens to it. Made by `in`, `out`, `inout`.
///
/// Elements are converted to float (double for f64) when loaded and back when stored; what is only
/// written is not loaded, what is only read is not stored.
template <access A>
struct operand {
  static constexpr access how = A;
  tensor_list const* list;
  rounding const* round = nullptr;  ///< per tensor, for 16-bit stores; null: to nearest even
  i64 const* origin = nullptr;      ///< per tensor: index of its first element, keys the rounding
};

[[nodiscard]] inline operand<access::in> in(tensor_list const& list) noexcept { return {&list}; }
[[nodiscard]] inline operand<access::out> out(tensor_list const& list, rounding const* round = nullptr,
                                              i64 const* origin = nullptr) noexcept {
  return {&list, round, origin};
}
[[nodiscard]] inline operand<access::inout> inout(tensor_list const& list, rounding const* round = nullptr,
                                                  i64 const* origin = nullptr) noexcept {
  return {&list, round, origin};
}

/// The functor for tensor `t` in arithmetic type T: `source.at<T>(t)` if the source makes one per
/// tensor (rules, whose coefficients differ), else the source itself.
template <class T, class F>
[[nodiscard]] LIMBER_HD inline decltype(auto) functor_of(F const& source, i64 t) noexcept {
  if constexpr (requires { source.template at<T>(t); })
    return source.template at<T>(t);
  else
    return (source);
}

/// What a norm pass found out.
struct norm_report {
  struct entry {
    double square = 0;   ///< Σ x², in double
    double root = 0;     ///< √Σ x² as computed in the arithmetic type: the same bits on every device
    bool finite = true;  ///< no element is infinite or NaN
  };
  std::vector<entry> tensors;
  entry total;
  i64 culprit = -1;  ///< first tensor with a non-finite element, −1 when there is none
};

/// Runs functors over lists of tensors.
///
///     slab make(layout const&)                     flat memory, zeroed; once, never in a step
///     void each(f, operands…)                      f(x…) for every element; x is T& or T const&
///     norm_report const& norm(f, operands…)        the same, and the norms of what f returns
///     event record(); void wait(event)             orders what was started before against a collective
///
/// Shapes   all lists have the same number of tensors and equal lengths position by position; tensors
///          of length 0 are skipped. Lists must not overlap each other. f64 goes with f64 only.
/// Order    calls take effect in the order they are made. The report is valid until the next `norm`.
/// Bits     `each` is element-wise, `norm` follows the tree of core/norm.hpp: threads change nothing.
template <class E>
concept executor = requires(E& e, layout const& where, tensor_list const& l, void (*f)(float&, float const&),
                            float (*g)(float const&)) {
  { e.make(where) } -> std::same_as<slab>;
  e.each(f, inout(l), in(l));
  { e.norm(g, in(l)) } -> std::same_as<norm_report const&>;
  e.wait(e.record());
};

}  // namespace limber

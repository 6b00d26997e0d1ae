// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The contract of an executor: the only place that touches tensor memory.

#include <limber/core/random.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/layout.hpp>
#include <limber/fuse/norm_report.hpp>
#include <limber/fuse/shared_array.hpp>

#include <concepts>
#include <type_traits>

namespace limber {

enum class access_mode { in, out, inout };

/// A list handed to an executor, with what happens to it. Made by `in`, `out`, `inout`.
///
/// Elements are converted to float (double for f64) when loaded and back when stored; what is only
/// written is not loaded, what is only read is not stored.
template <access_mode A>
struct operand {
  static constexpr access_mode how = A;
  tensor_list const* list;
  rounding const* round = nullptr;  ///< per tensor, for 16-bit stores; null: to nearest even
  i64 const* origin = nullptr;      ///< per tensor: index of its first element, keys the rounding
};

[[nodiscard]] inline operand<access_mode::in> in(tensor_list const& list) noexcept { return {&list}; }
[[nodiscard]] inline operand<access_mode::out> out(tensor_list const& list, rounding const* round = nullptr,
                                                   i64 const* origin = nullptr) noexcept {
  return {&list, round, origin};
}
[[nodiscard]] inline operand<access_mode::inout> inout(tensor_list const& list,
                                                       rounding const* round = nullptr,
                                                       i64 const* origin = nullptr) noexcept {
  return {&list, round, origin};
}

/// The functor for tensor `t` in arithmetic type T: `source.at<T>(t)` if the source makes one per
/// tensor (rules, whose coefficients differ), else the source itself.
template <class T, class F>
[[nodiscard]] LIMBER_HD inline decltype(auto) functor_of(F const& source, [[maybe_unused]] i64 t) noexcept {
  if constexpr (requires { source.template at<T>(t); })
    return source.template at<T>(t);
  else
    return (source);
}

/// True if the source wants to be left out: a source may have
///
///     bool skips() const          asked where the functor runs, so it may read what kernels wrote
///     auto otherwise() const      the functor for every element then; for `measure` norms are zero then
template <class F>
[[nodiscard]] LIMBER_HD inline bool skips([[maybe_unused]] F const& source) noexcept {
  if constexpr (requires { source.skips(); })
    return source.skips();
  else
    return false;
}

/// Runs functors over lists of tensors.
///
///     slab make(layout const&)                     flat memory, zeroed; once, never in a step
///     void each(f, operands…)                      f(x…) for every element; x is T& or T const&
///     void measure(norm_memory&, f, operands…)     the same, and the norms of what f returns (T or two<T>)
///     norm_report const& norm(f, operands…)        measure, and read. Synchronizes.
///     norm_report const& report(norm_memory const&)   reads what `measure` found. Synchronizes.
///     void run(i64 n, f)                           f(i) for i in [0, n): control, not tensors
///     shared_array<T> share<T>(n)                  memory that host and functors both see; once
///     void publish(shared_array)                   host side → executor's; the host side may change at once
///     void collect(shared_array)                   executor's side → host side. Synchronizes.
///     event record(); void wait(event)             the host waits for what was started before
///
/// Shapes   all lists have the same number of tensors and equal lengths position by position; tensors
///          of length 0 are skipped. Lists must not overlap each other. f64 goes with f64 only.
/// Order    calls take effect in the order they are made; only what says so waits for them. A functor
///          that reads memory reads the executor's side (`shared_array::device`). A report is valid until
///          the next one.
/// Bits     `each` is element-wise, `measure` follows the tree of core/norm.hpp: threads change nothing.
template <class E>
concept executor = requires(E& e, layout const& where, tensor_list const& l, void (*f)(float&, float const&),
                            float (*g)(float const&), void (*h)(i64), norm_memory& m, shared_array<i64> a) {
  { e.make(where) } -> std::same_as<slab>;
  e.each(f, inout(l), in(l));
  e.measure(m, g, in(l));
  { e.norm(g, in(l)) } -> std::same_as<norm_report const&>;
  { e.report(m) } -> std::same_as<norm_report const&>;
  e.run(i64{1}, h);
  { e.template share<i64>(i64{1}) } -> std::same_as<shared_array<i64>>;
  e.publish(a);
  e.collect(a);
  e.wait(e.record());
};

}  // namespace limber

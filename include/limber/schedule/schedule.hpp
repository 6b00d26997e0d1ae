// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The contract of a schedule: a rate, or a factor of one, as a pure function of progress.

#include <limber/core/progress.hpp>
#include <limber/core/units.hpp>

#include <concepts>
#include <type_traits>

namespace limber {

/// A pure function of progress, evaluated in double. No state: what it returns for a progress does
/// not depend on what was asked before, so seeking, resuming and nesting cannot change a value.
/// A lambda is a schedule. A type of your own may say more: `gain(progress)` (`gain_of`), `length`
/// (`finite_schedule`), and `each_amount(f)`, which calls f with every amount that it measures progress by,
/// so that an optimizer can ask for the size of an epoch before training, and a sequence for one common unit.
template <class S>
concept schedule = std::copy_constructible<S> && requires(S const& s, progress const& p) {
  { s(p) } -> std::convertible_to<double>;
};

/// A schedule with an end; may stand in front of `|`.
template <class S>
concept finite_schedule = schedule<S> && requires(S const& s) {
  { s.length } -> std::convertible_to<amount>;
};

/// A schedule that can be copied to a device as bytes, to be evaluated there: all of this room are, and
/// what combinators make of such. Its operator() must be LIMBER_HD, and so must its parts': a concept
/// cannot ask that, `on_device` does.
template <class S>
concept device_schedule = schedule<S> && std::is_trivially_copyable_v<S>;

#if defined(__CUDACC__)
namespace detail {
// Every part is called by a __device__ function here; it is an error then, not a warning, if it is host-only.
template <class S>
__device__ void refuse_host_only(S const& s, progress const& p) {
  static_cast<void>(s(p));
  if constexpr (requires { requires schedule<decltype(s.part)>; }) refuse_host_only(s.part, p);
  if constexpr (requires { requires schedule<decltype(s.a)> && schedule<decltype(s.b)>; })
    refuse_host_only(s.a, p), refuse_host_only(s.b, p);
  if constexpr (requires { requires schedule<decltype(s.before)> && schedule<decltype(s.after)>; })
    refuse_host_only(s.before, p), refuse_host_only(s.after, p);
  if constexpr (requires { requires schedule<decltype(s.first)> && schedule<decltype(s.rest)>; })
    refuse_host_only(s.first, p), refuse_host_only(s.rest, p);
}
}  // namespace detail

/// s(p), for kernels. Does not compile if s or a part of it is host-only. Does not synchronize.
template <device_schedule S>
[[nodiscard]] __device__ double on_device(S const& s, progress const& p) {
  if (false) detail::refuse_host_only(s, p);
  return static_cast<double>(s(p));
}
#endif

}  // namespace limber

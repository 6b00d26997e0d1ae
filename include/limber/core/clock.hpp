// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Time is injected: everything that measures takes a clock, and a simulator hands in a virtual one.

#include <limber/core/box.hpp>
#include <limber/core/config.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace limber {

namespace detail {

/// Any callable without arguments, which it owns a copy of.
template <class R>
class callable {
 public:
  callable(std::nullptr_t = nullptr) noexcept {}
  callable(R (*f)()) noexcept : plain_(f) {}
  template <class F>
    requires(!std::is_same_v<F, callable>)
  &&requires(F& f) { static_cast<R>(f()); }
  callable(F f)
      : held_(std::in_place, std::move(f)),
        call_([](void* p) { return static_cast<R>((*static_cast<F*>(p))()); }) {}

  /// @pre it is not empty
  R operator()() const { return plain_ != nullptr ? plain_() : call_(const_cast<void*>(held_.get())); }

  friend bool operator==(callable const& c, std::nullptr_t) noexcept {
    return c.plain_ == nullptr && c.held_.get() == nullptr;
  }

 private:
  R (*plain_)() = nullptr;
  box held_;
  R (*call_)(void*) = nullptr;
};

}  // namespace detail

/// Seconds since an arbitrary start; must never run backwards. Any callable without arguments.
using clock_function = detail::callable<double>;
/// Waits a moment: how code waits between two looks at something, injected as time is.
using pause_function = detail::callable<void>;

/// The default clock, and the only place below examples/ that reads real time: std::chrono::steady_clock.
[[nodiscard]] double steady_seconds();

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/core/impl/clock.ipp>
#endif

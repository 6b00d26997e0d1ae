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

/// Seconds since an arbitrary start; must never run backwards. Any callable without arguments, which it owns
/// a copy of.
class clock_function {
 public:
  clock_function(std::nullptr_t = nullptr) noexcept {}
  clock_function(double (*f)()) noexcept : plain_(f) {}
  template <class F>
    requires(!std::is_same_v<F, clock_function> && std::is_invocable_r_v<double, F&>)
  clock_function(F f)
      : held_(std::in_place, std::move(f)),
        call_([](void* p) { return static_cast<double>((*static_cast<F*>(p))()); }) {}

  /// @pre it is not empty
  double operator()() const { return plain_ != nullptr ? plain_() : call_(const_cast<void*>(held_.get())); }

  friend bool operator==(clock_function const& c, std::nullptr_t) noexcept {
    return c.plain_ == nullptr && c.held_.get() == nullptr;
  }

 private:
  double (*plain_)() = nullptr;
  detail::box held_;
  double (*call_)(void*) = nullptr;
};

/// The default clock, and the only place below examples/ that reads real time: std::chrono::steady_clock.
[[nodiscard]] double steady_seconds();

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/core/impl/clock.ipp>
#endif

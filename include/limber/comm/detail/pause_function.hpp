// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How a wrapper waits between two looks at its mailbox: injected, as time is.

#include <limber/core/box.hpp>
#include <limber/core/config.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace limber {

/// Waits a moment. Any callable without arguments, which it owns a copy of.
class pause_function {
 public:
  pause_function(std::nullptr_t = nullptr) noexcept {}
  pause_function(void (*f)()) noexcept : plain_(f) {}
  template <class F>
    requires(!std::is_same_v<F, pause_function> && std::is_invocable_v<F&>)
  pause_function(F f)
      : held_(std::in_place, std::move(f)),
        call_([](void* p) { static_cast<void>((*static_cast<F*>(p))()); }) {}

  /// @pre it is not empty
  void operator()() const { plain_ != nullptr ? plain_() : call_(const_cast<void*>(held_.get())); }

  friend bool operator==(pause_function const& p, std::nullptr_t) noexcept {
    return p.plain_ == nullptr && p.held_.get() == nullptr;
  }

 private:
  void (*plain_)() = nullptr;
  detail::box held_;
  void (*call_)(void*) = nullptr;
};

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A reference to something callable, for functions that are compiled once.

#include <limber/core/config.hpp>

#include <type_traits>

namespace limber {

template <class Signature>
class function_ref;

/// Refers to a callable that outlives the call it is passed to; two pointers, never owns or allocates.
///
///     void visit(function_ref<void(state_piece const&)> f);      visit([&](state_piece const& p) { … });
template <class R, class... A>
class function_ref<R(A...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, function_ref>)
  &&requires(F& f, A... a) { static_cast<R>(f(static_cast<A>(a)...)); }
  function_ref(F&& f) noexcept
      : call_([](void* object, A... a) -> R {
          return static_cast<R>(
              (*reinterpret_cast<std::remove_reference_t<F>*>(object))(static_cast<A>(a)...));
        }) {
    if constexpr (std::is_function_v<std::remove_reference_t<F>>)
      object_ = reinterpret_cast<void*>(&f);
    else
      object_ = const_cast<void*>(static_cast<void const volatile*>(&f));
  }

  R operator()(A... a) const { return call_(object_, static_cast<A>(a)...); }

 private:
  void* object_;
  R (*call_)(void*, A...);
};

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Owners of one value: of any type, or behind an interface.

#include <limber/core/config.hpp>

#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>

namespace limber::detail {

/// What a box knows of the type it holds: one such object a type.
struct box_functions {
  void* (*copy)(void const*);
  void (*destroy)(void*) noexcept;
};
template <class T>
inline constexpr box_functions box_functions_of{
    [](void const* p) -> void* { return new T(*static_cast<T const*>(p)); },
    [](void* p) noexcept { delete static_cast<T*>(p); }};

/// A copyable value of any type; its address is kept when the box moves.
class box {
 public:
  box() noexcept = default;
  template <class T>
  box(std::in_place_t, T value) : value_(new T(std::move(value))), functions_(&box_functions_of<T>) {}
  box(box const& other)
      : value_(other.value_ != nullptr ? other.functions_->copy(other.value_) : nullptr),
        functions_(other.functions_) {}
  box(box&& other) noexcept : value_(std::exchange(other.value_, nullptr)), functions_(other.functions_) {}
  box& operator=(box other) noexcept {
    std::swap(value_, other.value_);
    std::swap(functions_, other.functions_);
    return *this;
  }
  ~box() {
    if (value_ != nullptr) functions_->destroy(value_);
  }

  [[nodiscard]] void const* get() const noexcept { return value_; }
  [[nodiscard]] void* get() noexcept { return value_; }

 private:
  void* value_ = nullptr;
  box_functions const* functions_ = nullptr;
};

/// Converts to everything: in the place of an argument that a static_assert has refused, so that nothing more
/// is reported.
struct anything {
  template <class T>
  operator T() const;
};

/// The name of a type, for messages: without its namespaces.
template <class T>
[[nodiscard]] constexpr std::string_view type_name() noexcept {
  std::string_view s = __PRETTY_FUNCTION__;
  auto const from = s.find("T = ");
  if (from == std::string_view::npos) return s;
  s = s.substr(from + 4);
  s = s.substr(0, s.find_first_of(";]"));
  for (auto colon = s.find("::"); colon < s.find('<'); colon = s.find("::")) s.remove_prefix(colon + 2);
  return s;
}

#if defined(__GXX_RTTI) || defined(__cpp_rtti)
/// Identifies a type, also where a program and a shared library each have a hidden copy of what is known of
/// it.
class type_identity {
 public:
  constexpr type_identity() noexcept = default;
  constexpr explicit type_identity(std::type_info const& type) noexcept : type_(&type) {}
  [[nodiscard]] friend bool operator==(type_identity a, type_identity b) noexcept {
    return a.type_ == b.type_ || (a.type_ != nullptr && b.type_ != nullptr && *a.type_ == *b.type_);
  }

 private:
  std::type_info const* type_ = nullptr;
};
template <class T>
inline constexpr type_identity type_key{typeid(T)};
#else
/// Identifies a type by an address; a program and a shared library must see the same one.
class type_identity {
 public:
  constexpr type_identity() noexcept = default;
  constexpr explicit type_identity(char const& of) noexcept : type_(&of) {}
  [[nodiscard]] friend bool operator==(type_identity, type_identity) noexcept = default;

 private:
  char const* type_ = nullptr;
};
template <class T>
inline constexpr char type_mark = 0;
template <class T>
inline constexpr type_identity type_key{type_mark<T>};
#endif

/// Shares one object of any type, which goes with its last owner.
class shared_owner {
 public:
  shared_owner() noexcept = default;
  template <class T>
  shared_owner(std::in_place_t, T value) : held_(new holder<T>(std::move(value))) {}
  shared_owner(shared_owner const& other) noexcept : held_(other.held_) {
    if (held_ != nullptr) __atomic_fetch_add(&held_->owners, 1, __ATOMIC_RELAXED);
  }
  shared_owner(shared_owner&& other) noexcept : held_(std::exchange(other.held_, nullptr)) {}
  shared_owner& operator=(shared_owner other) noexcept {
    std::swap(held_, other.held_);
    return *this;
  }
  ~shared_owner() {
    if (held_ != nullptr && __atomic_fetch_sub(&held_->owners, 1, __ATOMIC_ACQ_REL) == 1)
      held_->destroy(held_);
  }

 private:
  struct head {
    long owners =
        1;  // by the compiler's atomics: <atomic> costs a unit more than all the rest of this header
    void (*destroy)(head*) noexcept;
  };
  template <class T>
  struct holder : head {
    T value;
    explicit holder(T v) : value(std::move(v)) {
      this->destroy = [](head* h) noexcept { delete static_cast<holder*>(h); };
    }
  };
  head* held_ = nullptr;
};

/// The only owner of an object; as std::unique_ptr, without what <memory> costs a unit.
template <class T>
class owner {
 public:
  owner() noexcept = default;
  explicit owner(T* p) noexcept : p_(p) {}
  template <class U>
    requires std::is_convertible_v<U*, T*> owner(owner<U>&& other)
  noexcept : p_(other.release()) {}
  owner(owner&& other) noexcept : p_(other.release()) {}
  owner& operator=(owner&& other) noexcept {
    std::swap(p_, other.p_);
    return *this;
  }
  ~owner() { delete p_; }

  [[nodiscard]] T* release() noexcept { return std::exchange(p_, nullptr); }
  [[nodiscard]] T* get() const noexcept { return p_; }
  [[nodiscard]] T& operator*() const noexcept { return *p_; }
  [[nodiscard]] T* operator->() const noexcept { return p_; }
  [[nodiscard]] explicit operator bool() const noexcept { return p_ != nullptr; }

 private:
  T* p_ = nullptr;
};

}  // namespace limber::detail

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Named, non-owning views of tensors, and groups of parameters that share hyper-parameters.

#include <limber/core/config.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber {

namespace detail {
/// @throws std::invalid_argument unless `held` and `wanted` are the same, naming both
void expect_type(dtype held, dtype wanted, std::string_view name);
}  // namespace detail

/// A flat run of elements in somebody else's memory. Copying copies the view, never the elements.
///
/// Shapes   `length` elements of `type` from `data`; length 0 may have any `data`.
struct tensor_view {
  std::byte* data = nullptr;
  i64 length = 0;
  dtype type = dtype::f32;
  std::string_view name{};  ///< for messages; not owned

  [[nodiscard]] i64 bytes() const noexcept { return length * size_of(type); }

  /// The elements as a span of T. @throws std::invalid_argument if T is not the element type
  template <class T>
  [[nodiscard]] std::span<T> as() const {
    detail::expect_type(type, dtype_of<T>, name);
    return {reinterpret_cast<T*>(data), static_cast<std::size_t>(length)};
  }

  /// Elements [first, first + count).
  [[nodiscard]] tensor_view sub(i64 first, i64 count) const noexcept {
    return {data + first * size_of(type), count, type, name};
  }
};

/// A view of memory that is only read.
struct const_tensor_view {
  std::byte const* data = nullptr;
  i64 length = 0;
  dtype type = dtype::f32;
  std::string_view name{};

  const_tensor_view() = default;
  const_tensor_view(std::byte const* d, i64 n, dtype t, std::string_view s = {})
      : data(d), length(n), type(t), name(s) {}
  const_tensor_view(tensor_view v) : data(v.data), length(v.length), type(v.type), name(v.name) {}

  [[nodiscard]] i64 bytes() const noexcept { return length * size_of(type); }

  template <class T>
  [[nodiscard]] std::span<T const> as() const {
    detail::expect_type(type, dtype_of<T>, name);
    return {reinterpret_cast<T const*>(data), static_cast<std::size_t>(length)};
  }
};

/// A list of tensors; what an executor works on.
using tensor_list = std::vector<tensor_view>;

namespace detail {
template <class Range>
using element_t = std::remove_reference_t<decltype(*std::data(std::declval<Range&>()))>;

template <class Range>
concept contiguous_memory = requires(Range& r) {
  *std::data(r);
  std::size(r);
};
}  // namespace detail

/// A contiguous, writable range of a storage type: vector, array, span, an engine's buffer.
template <class Range>
concept tensor_memory = detail::contiguous_memory<Range> &&
    has_dtype<std::remove_cv_t<detail::element_t<Range>>> && !std::is_const_v<detail::element_t<Range>>;

/// Views a contiguous range.
template <tensor_memory Range>
[[nodiscard]] tensor_view view(Range&& memory, std::string_view name = {}) noexcept {
  return {reinterpret_cast<std::byte*>(std::data(memory)), static_cast<i64>(std::size(memory)),
          dtype_of<detail::element_t<Range>>, name};
}

/// Views a contiguous range for reading.
template <class Range>
[[nodiscard]] const_tensor_view const_view(Range const& memory, std::string_view name = {}) noexcept {
  return {reinterpret_cast<std::byte const*>(std::data(memory)), static_cast<i64>(std::size(memory)),
          dtype_of<std::remove_cv_t<detail::element_t<Range const>>>, name};
}

namespace detail {

/// True if a tensor may keep a view of an argument T&&. Else it does not compile, and says why in one
/// sentence. What owns no elements may be a temporary, and a constant one gives them for writing too.
template <class T>
constexpr bool expect_lasting_memory() {
  using range = std::remove_reference_t<T>;
  constexpr bool constant = std::is_convertible_v<T, const_tensor_view>,
                 contiguous = contiguous_memory<range>;
  static_assert(contiguous || constant,
                "limber: tensor: the memory is not contiguous; give a vector, an array or a span");
  if constexpr (contiguous && !constant) {
    using element = element_t<range>;
    constexpr bool writable = !std::is_const_v<element>, known = !writable || has_dtype<element>;
    constexpr bool lasts = !writable || !known || std::is_lvalue_reference_v<T> ||
                           std::ranges::enable_borrowed_range<std::remove_cv_t<range>> ||
                           !std::is_const_v<element_t<range const>>;
    static_assert(writable,
                  "limber: tensor: the memory is read-only; an optimizer writes values and gradients");
    static_assert(known, "limber: tensor: the elements must be float, double, limber::bf16 or limber::f16");
    static_assert(
        lasts,
        "limber: tensor: the memory is a temporary that is gone after this line; keep the vector and "
        "pass it by name");
    return writable && known && lasts;
  }
  static_assert(!constant,
                "limber: tensor: the memory is read-only; an optimizer writes values and gradients");
  return false;
}

template <class T>
[[nodiscard]] tensor_view kept_view(T&& memory) {
  if constexpr (std::is_convertible_v<T, tensor_view>)
    return static_cast<T&&>(memory);
  else if constexpr (expect_lasting_memory<T>())
    return view(memory);
  else
    return {};
}

}  // namespace detail

/// A parameter: its values and its gradient in the host framework's memory, under one name.
///
/// Shapes   value and gradient have the same length; their dtypes may differ (bf16 values with an
///          fp32 gradient, say). A tensor of a `buffers` group has no gradient.
/// Memory   contiguous and writable, by name: vectors, arrays. Spans and tensor_views may be temporaries; a
///          temporary that owns its elements does not compile.
struct tensor {
  std::string name;
  tensor_view value;
  tensor_view gradient{};

  tensor(std::string n, tensor_view v, tensor_view g = {}) : name(std::move(n)), value(v), gradient(g) {}
  template <class Value, class Gradient>
  tensor(std::string n, Value&& v, Gradient&& g)
      : tensor(std::move(n), detail::kept_view<Value>(static_cast<Value&&>(v)),
               detail::kept_view<Gradient>(static_cast<Gradient&&>(g))) {}
  template <class Value>
  tensor(std::string n, Value&& v)
      : tensor(std::move(n), detail::kept_view<Value>(static_cast<Value&&>(v))) {}
};

/// Tensors that share hyper-parameters: a group carries its own copy of a rule, of any type.
///
///     parameter_group{weights, sgd{.momentum = 0.9, .weight_decay = 1e-4}}, parameter_group{biases,
///     sgd{.momentum = 0.9}, 2.0}
template <class R>
struct parameter_group {
  std::vector<tensor> tensors;
  R rule;
  double lr_scale = 1;  ///< multiplies the scheduled rate for this group
};
template <class R>
parameter_group(std::vector<tensor>, R) -> parameter_group<R>;
template <class R>
parameter_group(std::vector<tensor>, R, double) -> parameter_group<R>;

/// Tensors without a gradient that are averaged at every synchronisation (batch-norm statistics).
struct buffers {
  std::vector<tensor> tensors;
};

/// Checks what every list of parameters must satisfy, whatever group it is in.
/// @throws std::invalid_argument naming the tensor: empty or repeated name, no memory, a type that
///         is not floating, value and gradient of different length
void check(std::vector<tensor> const& tensors, bool with_gradient);

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/core/impl/tensor.ipp>
#endif

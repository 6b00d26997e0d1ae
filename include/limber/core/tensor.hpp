// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Named, non-owning views of tensors, and groups of parameters that share hyper-parameters.

#include <limber/core/config.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber {

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
    expects(dtype_of<T> == type, "tensor '", name, "' holds ", name_of(type), ", not ", name_of(dtype_of<T>));
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
    expects(dtype_of<T> == type, "tensor '", name, "' holds ", name_of(type), ", not ", name_of(dtype_of<T>));
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
  std::data(r);
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

/// A parameter: its values and its gradient in the host framework's memory, under one name.
///
/// Shapes   value and gradient have the same length; their dtypes may differ (bf16 values with an
///          fp32 gradient, say). A tensor of a `buffers` group has no gradient.
struct tensor {
  std::string name;
  tensor_view value;
  tensor_view gradient{};

  tensor(std::string n, tensor_view v, tensor_view g = {}) : name(std::move(n)), value(v), gradient(g) {}
  template <tensor_memory Value, tensor_memory Gradient>
  tensor(std::string n, Value&& v, Gradient&& g) : name(std::move(n)), value(view(v)), gradient(view(g)) {}
  template <tensor_memory Value>
  tensor(std::string n, Value&& v) : name(std::move(n)), value(view(v)) {}
};

/// Tensors that share hyper-parameters: a group carries its own copy of a rule, of any type.
///
///     group{weights, sgd{.momentum = 0.9, .weight_decay = 1e-4}}, group{biases, sgd{.momentum = 0.9}, 2.0}
template <class R>
struct group {
  std::vector<tensor> tensors;
  R rule;
  double lr_scale = 1;  ///< multiplies the scheduled rate for this group
};
template <class R>
group(std::vector<tensor>, R) -> group<R>;
template <class R>
group(std::vector<tensor>, R, double) -> group<R>;

/// Tensors without a gradient that are averaged at every synchronisation (batch-norm statistics).
struct buffers {
  std::vector<tensor> tensors;
};

/// Checks what every list of parameters must satisfy, whatever group it is in.
/// @throws std::invalid_argument naming the tensor: empty or repeated name, no memory, a type that
///         is not floating, value and gradient of different length
inline void check(std::vector<tensor> const& tensors, bool with_gradient) {
  std::vector<std::string_view> names;
  for (auto const& t : tensors) {
    expects(!t.name.empty(), "a parameter of ", t.value.length, " elements has an empty name");
    expects(t.value.length >= 0, "'", t.name, "': length ", t.value.length, " is negative");
    expects(t.value.length == 0 || t.value.data != nullptr, "'", t.name, "': value is a null pointer");
    expects(is_floating(t.value.type), "'", t.name, "': values of type ", name_of(t.value.type),
            " cannot be trained");
    if (with_gradient) {
      expects(t.gradient.length == t.value.length, "'", t.name, "': ", t.value.length, " values but ",
              t.gradient.length, " gradients");
      expects(t.value.length == 0 || t.gradient.data != nullptr, "'", t.name,
              "': gradient is a null pointer");
      expects(is_floating(t.gradient.type), "'", t.name, "': gradients of type ", name_of(t.gradient.type),
              " cannot be used");
      expects((t.value.type == dtype::f64) == (t.gradient.type == dtype::f64) || t.value.length == 0, "'",
              t.name, "': values are ", name_of(t.value.type), " but gradients ", name_of(t.gradient.type),
              "; f64 goes with f64 only");
    }
    names.emplace_back(t.name);
  }
  std::ranges::sort(names);
  auto const twice = std::ranges::adjacent_find(names);
  expects(twice == names.end(), "two parameters are named '", twice == names.end() ? "" : *twice, "'");
}

}  // namespace limber

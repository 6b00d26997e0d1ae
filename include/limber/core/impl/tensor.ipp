// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/tensor.hpp>

namespace limber {

namespace detail {

LIMBER_FN void expect_type(dtype held, dtype wanted, std::string_view name) {
  expects(held == wanted, "tensor '", name, "' holds ", name_of(held), ", not ", name_of(wanted));
}

// The first name that is there twice, or an empty one. No sorting: <algorithm> costs a unit 0.1 s.
[[nodiscard]] LIMBER_COLD LIMBER_FN std::string_view repeated_name(std::vector<tensor> const& tensors) {
  std::size_t slots = 1;
  while (slots < 2 * tensors.size()) slots *= 2;
  std::vector<std::string_view> seen(slots);
  for (auto const& t : tensors) {
    std::string_view const name = t.name;
    std::size_t at = std::hash<std::string_view>{}(name) & (slots - 1);
    for (; !seen[at].empty(); at = (at + 1) & (slots - 1))
      if (seen[at] == name) return name;
    seen[at] = name;
  }
  return {};
}

LIMBER_COLD LIMBER_FN void check_gradient(tensor const& t) {
  tensor_view const &v = t.value, &g = t.gradient;
  expects(g.length == v.length, "'", t.name, "': ", v.length, " values but ", g.length, " gradients");
  expects(v.length == 0 || g.data != nullptr, "'", t.name, "': gradient is a null pointer");
  expects(is_floating(g.type), "'", t.name, "': gradients of type ", name_of(g.type), " cannot be used");
  expects((v.type == dtype::f64) == (g.type == dtype::f64) || v.length == 0, "'", t.name, "': values are ",
          name_of(v.type), " but gradients ", name_of(g.type), "; f64 goes with f64 only");
}

}  // namespace detail

LIMBER_COLD LIMBER_FN void check(std::vector<tensor> const& tensors, bool with_gradient) {
  for (auto const& t : tensors) {
    expects(!t.name.empty(), "a parameter of ", t.value.length, " elements has an empty name");
    expects(t.value.length >= 0, "'", t.name, "': length ", t.value.length, " is negative");
    expects(t.value.length == 0 || t.value.data != nullptr, "'", t.name, "': value is a null pointer");
    expects(is_floating(t.value.type), "'", t.name, "': values of type ", name_of(t.value.type),
            " cannot be trained");
    if (with_gradient) detail::check_gradient(t);
  }
  std::string_view const twice = detail::repeated_name(tensors);
  expects(twice.empty(), "two parameters are named '", twice, "'");
}

}  // namespace limber

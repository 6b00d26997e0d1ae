// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Lists of tensors in memory of their own, to be given to two executors and compared.

#include <limber/core/dtype.hpp>
#include <limber/core/tensor.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace limber::test {

/// What the elements are drawn from.
enum class values { ordinary, any_magnitude, not_finite };

/// Tensors, each in an allocation that ends where it ends, so that a sanitizer sees every access beside it.
struct owned_list {
  tensor_list list;
  std::vector<std::unique_ptr<std::byte[]>> memory;
  std::vector<std::size_t> offset;
  std::vector<std::string> names;

  owned_list() = default;
  owned_list(owned_list&&) = default;
  owned_list& operator=(owned_list&&) = default;
  owned_list(owned_list const& other) {
    for (std::size_t t = 0; t < other.list.size(); ++t) {
      add(other.list[t].length, other.list[t].type, other.offset[t]);
      if (list[t].length > 0)
        std::memcpy(list[t].data, other.list[t].data, static_cast<std::size_t>(list[t].bytes()));
    }
  }
  owned_list& operator=(owned_list const&) = delete;

  /// @param shift  bytes behind an address that is a multiple of 16
  void add(i64 length, dtype type, std::size_t shift = 0) {
    names.reserve(1 << 14);  // views of names stay valid
    names.push_back("t" + std::to_string(list.size()));
    memory.push_back(std::make_unique<std::byte[]>(shift + static_cast<std::size_t>(length * size_of(type))));
    offset.push_back(shift);
    list.push_back({memory.back().get() + shift, length, type, names.back()});
  }
};

inline void fill(tensor_list const& list, std::mt19937& random, values kind) {
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> exponent(-149, 120), half_exponent(-24, 11), rare(0, 4000);
  // Magnitudes that the type has: what overflows would hide everything else.
  auto draw = [&](dtype type) {
    float x = normal(random);
    if (kind == values::any_magnitude)
      x = std::ldexp(x, type == dtype::f16 ? half_exponent(random) : exponent(random));
    if (kind == values::not_finite && rare(random) == 0)
      x = rare(random) % 2 == 0 ? std::numeric_limits<float>::infinity()
                                : std::numeric_limits<float>::quiet_NaN();
    return x;
  };
  for (auto const& t : list)
    with_type(t.type, [&]<class S>() {
      if constexpr (std::is_same_v<S, double>) {
        for (auto& x : t.as<S>())
          x = kind == values::any_magnitude ? std::ldexp(double{normal(random)}, 7 * exponent(random))
                                            : draw(t.type);
      } else if constexpr (!std::is_integral_v<S>) {
        for (auto& x : t.as<S>()) x = S(draw(t.type));
      }
    });
}

/// The value of an element of any type.
template <class S>
[[nodiscard]] double number(S const& x) {
  if constexpr (std::is_arithmetic_v<S>)
    return static_cast<double>(x);
  else
    return static_cast<double>(static_cast<float>(x));
}

/// Equal bits, NaNs of any payload apart.
[[nodiscard]] inline bool same(tensor_list const& a, tensor_list const& b) {
  bool equal = a.size() == b.size();
  for (std::size_t t = 0; equal && t < a.size(); ++t) {
    if (a[t].length == 0 || std::memcmp(a[t].data, b[t].data, static_cast<std::size_t>(a[t].bytes())) == 0)
      continue;
    with_type(a[t].type, [&]<class S>() {
      auto const x = a[t].as<S>(), y = b[t].as<S>();
      for (std::size_t k = 0; k < x.size(); ++k)
        if (std::memcmp(&x[k], &y[k], sizeof(S)) != 0) {
          auto const u = number(x[k]), v = number(y[k]);
          equal = equal && u != u && v != v;
        }
    });
  }
  return equal;
}

}  // namespace limber::test

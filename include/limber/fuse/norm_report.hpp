// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Where the norms of a list are kept, and what the host reads of them.

#include <limber/core/norm.hpp>
#include <limber/fuse/shared_array.hpp>

#include <vector>

namespace limber {

/// Two values of one element, each of which gets a norm of its own: a functor for `measure` may return
/// it instead of T.
template <class T>
struct two {
  T first, second;
};

/// How many norms a functor's result asks for.
template <class Y>
inline constexpr int norms_in = 1;
template <class T>
inline constexpr int norms_in<two<T>> = 2;

/// One tensor's norm.
template <class T>
struct tensor_norm {
  square_sum<T> sum{};  ///< Σ x²
  T root = 0;           ///< √Σ x²; NaN if an element is not finite
};

/// Norms as kernels see them: per tensor, and of all.
///
/// Tensor t of f64 is in wide[t], any other in narrow[t]. The total is in narrow[tensors]; if the list
/// holds f64, it is added in double, in wide[tensors], and narrow[tensors] is that rounded.
struct norm_facts {
  tensor_norm<float> const* narrow = nullptr;
  tensor_norm<double> const* wide = nullptr;
  i64 tensors = 0;
  bool any_wide = false;  ///< the list holds f64

  template <class T>
  [[nodiscard]] LIMBER_HD tensor_norm<T> const& of(i64 t) const noexcept {
    if constexpr (sizeof(T) == sizeof(double))
      return wide[t];
    else
      return narrow[t];
  }
  template <class T>
  [[nodiscard]] LIMBER_HD tensor_norm<T> const& total() const noexcept {
    return of<T>(tensors);
  }
  /// Σ x² of all, in double: for control functors, not for kernels over elements.
  [[nodiscard]] LIMBER_HD double total_square() const noexcept {
    return any_wide ? value_of(wide[tensors].sum) : value_of(narrow[tensors].sum);
  }
  /// False if any element of the list was infinite or NaN.
  [[nodiscard]] LIMBER_HD bool finite() const noexcept { return narrow[tensors].sum.finite(); }
};

/// What a norm pass found out, on the host.
struct norm_report {
  struct entry {
    double square = 0;   ///< Σ x², in double
    double root = 0;     ///< √Σ x² as computed in the arithmetic type: the same bits on every device
    bool finite = true;  ///< no element is infinite or NaN
  };
  std::vector<entry> tensors;
  entry total;
  i64 culprit = -1;  ///< first tensor with a non-finite element, −1 when there is none
};

/// Memory for the norms of a list: made once by `make_norms`, filled by `measure`.
struct norm_memory {
  shared_array<tensor_norm<float>> narrow;  ///< for each sum: one per tensor, then the total
  shared_array<tensor_norm<double>> wide;
  i64 tensors = 0;
  int sums = 1;
  std::vector<i64> is_wide{};  ///< per tensor: measured in double, as of the last `measure`

  [[nodiscard]] bool any_wide() const noexcept {
    for (i64 const w : is_wide)
      if (w != 0) return true;
    return false;
  }
  /// @param sum  0, or 1 for the second value of a functor that returns `two`
  [[nodiscard]] norm_facts facts(int sum = 0) const noexcept {
    i64 const at = sum * (tensors + 1);
    return {narrow.device + at, wide.device + at, tensors, any_wide()};
  }
};

/// Memory for the norms of a list of so many tensors.
template <class E>
[[nodiscard]] LIMBER_COLD norm_memory make_norms(E& e, i64 tensors, int sums = 1) {
  norm_memory m;
  m.narrow = e.template share<tensor_norm<float>>(sums * (tensors + 1));
  m.wide = e.template share<tensor_norm<double>>(sums * (tensors + 1));
  m.tensors = tensors;
  m.sums = sums;
  m.is_wide.assign(static_cast<std::size_t>(tensors), 0);
  return m;
}

/// Reads norms that were collected to the host side into `out`.
void read_norms(norm_memory const& m, norm_report& out, int sum = 0);

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/fuse/impl/norm_report.ipp>
#endif

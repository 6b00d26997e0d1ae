// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The same rules through Thrust: one transform per tensor, and one reduction where a norm is asked for.

#include <limber/core/dtype.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/rule_functors.hpp>
#include <limber/rule/rule.hpp>

#include <thrust/execution_policy.h>
#include <thrust/functional.h>
#include <thrust/iterator/zip_iterator.h>
#include <thrust/transform.h>
#include <thrust/transform_reduce.h>
#include <thrust/tuple.h>
#include <thrust/zip_function.h>

#include <cmath>

namespace limber::bench {

/// `from…` through f into `to`, n elements.
template <class To, class F, class... From>
void transform(cudaStream_t stream, i64 n, F const& f, To to, From... from) {
  auto const begin = thrust::make_zip_iterator(thrust::make_tuple(from...));
  thrust::transform(thrust::cuda::par_nosync.on(stream), begin, begin + n, to, thrust::make_zip_function(f));
}

struct square_of {
  template <class S>
  LIMBER_HD float operator()(S x) const noexcept {
    auto const y = static_cast<float>(x);
    return math::mul(y, y);
  }
};

/// Σ x² of one tensor, on the host. Synchronizes.
template <class S>
[[nodiscard]] float sum_of_squares(cudaStream_t stream, i64 n, S const* x) {
  return thrust::transform_reduce(thrust::cuda::par.on(stream), x, x + n, square_of{}, 0.f,
                                  thrust::plus<float>{});
}

/// p, g, slots… → p, slots…
template <class Element>
struct keeping_gradient {
  Element f;
  template <class P, class G, class... S>
  LIMBER_HD thrust::tuple<P, S...> operator()(P p, G g, S... slots) const noexcept {
    auto w = static_cast<float>(p);
    auto const x = static_cast<float>(g);
    f(w, x, slots...);
    return {P(w), slots...};
  }
};

/// p, g, slots… → p, 0, slots…
template <class Element>
struct clearing_gradient {
  Element f;
  template <class P, class G, class... S>
  LIMBER_HD thrust::tuple<P, G, S...> operator()(P p, G g, S... slots) const noexcept {
    auto w = static_cast<float>(p), x = static_cast<float>(g);
    f(w, x, slots...);
    return {P(w), G(x), slots...};
  }
};

/// g, p, slots… → direction, slots…
template <class Element>
struct making_direction {
  Element f;
  template <class... S>
  LIMBER_HD thrust::tuple<float, S...> operator()(float g, float p, S... slots) const noexcept {
    float const w = p;
    (void)f(g, w, slots...);
    return {g, slots...};
  }
};

/// p, direction → p, 0; the rule takes the moments, but does not look at them.
template <class Element>
struct applying_direction {
  Element f;
  LIMBER_HD thrust::tuple<float, float> operator()(float p, float direction) const noexcept {
    float m = 0, v = 0;
    f(p, direction, m, v);
    return {p, direction};
  }
};

/// from → to.
template <class F, class To>
struct one_to_one {
  F f;
  template <class From>
  LIMBER_HD To operator()(From x) const noexcept {
    float y = 0;
    f(y, static_cast<float>(x));
    return To(y);
  }
};

/// to, from → to.
template <class F>
struct into_first {
  F f;
  template <class To, class From>
  LIMBER_HD To operator()(To to, From x) const noexcept {
    auto y = static_cast<float>(to);
    f(y, static_cast<float>(x));
    return To(y);
  }
};

/// a, b → to.
template <class F, class To>
struct two_to_one {
  F f;
  template <class A, class B>
  LIMBER_HD To operator()(A a, B b) const noexcept {
    float y = 0;
    (void)f(y, static_cast<float>(a), static_cast<float>(b));
    return To(y);
  }
};

/// g → sum, 0.
template <class Wire>
struct packing {
  pack f;
  LIMBER_HD thrust::tuple<Wire, float> operator()(float g) const noexcept {
    float sum = 0;
    (void)f(sum, g);
    return {Wire(sum), g};
  }
};

}  // namespace limber::bench

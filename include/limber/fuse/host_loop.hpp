// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The inner loops of the host executor: load, call, store, at the width the processor has.

#include <limber/core/dtype.hpp>
#include <limber/core/norm.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/functors.hpp>

#include <type_traits>
#include <utility>

// One loop is compiled twice, plainly and for AVX2 with FMA, and chosen at run time: an FMA without
// hardware is a call. Contraction is switched off, because it would change bits between the two.
#if defined(__x86_64__) && !defined(__CUDACC__) && (defined(__GNUC__) || defined(__clang__))
#define LIMBER_DETAIL_CLONES 1
#if defined(__clang__)
#define LIMBER_DETAIL_PLAIN
#define LIMBER_DETAIL_AVX2 __attribute__((target("avx2,fma"), flatten))
#else
#define LIMBER_DETAIL_PLAIN __attribute__((optimize("fp-contract=off")))
#define LIMBER_DETAIL_AVX2 __attribute__((target("avx2,fma"), optimize("O3", "fp-contract=off"), flatten))
#endif
#else
#define LIMBER_DETAIL_CLONES 0
#define LIMBER_DETAIL_PLAIN
#endif

namespace limber::detail {

template <class F, class... P>
LIMBER_DETAIL_PLAIN inline void loop_plain(F const& f, i64 n, P* __restrict... x) {
  for (i64 i = 0; i < n; ++i) f(x[i]...);
}

template <class F, class T, class... P>
LIMBER_DETAIL_PLAIN inline void loop_result_plain(F const& f, i64 n, T* __restrict y, P* __restrict... x) {
  for (i64 i = 0; i < n; ++i) y[i] = f(x[i]...);
}

template <class T>
LIMBER_DETAIL_PLAIN inline square_sum<T> square_plain(T const* x, i64 n) {
  return leaf_square_sum(x, n);
}

#if LIMBER_DETAIL_CLONES
template <class F, class... P>
LIMBER_DETAIL_AVX2 inline void loop_avx2(F const& f, i64 n, P* __restrict... x) {
  for (i64 i = 0; i < n; ++i) f(x[i]...);
}

template <class F, class T, class... P>
LIMBER_DETAIL_AVX2 inline void loop_result_avx2(F const& f, i64 n, T* __restrict y, P* __restrict... x) {
  for (i64 i = 0; i < n; ++i) y[i] = f(x[i]...);
}

template <class T>
LIMBER_DETAIL_AVX2 inline square_sum<T> square_avx2(T const* x, i64 n) {
  return leaf_square_sum(x, n);
}

[[nodiscard]] inline bool has_avx2() noexcept {
  static bool const yes = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return yes;
}
#endif

template <class F, class... P>
inline void loop(F const& f, i64 n, P*... x) {
#if LIMBER_DETAIL_CLONES
  if (has_avx2()) return loop_avx2(f, n, x...);
#endif
  loop_plain(f, n, x...);
}

template <class F, class T, class... P>
inline void loop_result(F const& f, i64 n, T* y, P*... x) {
#if LIMBER_DETAIL_CLONES
  if (has_avx2()) return loop_result_avx2(f, n, y, x...);
#endif
  loop_result_plain(f, n, y, x...);
}

template <class T>
inline square_sum<T> square_of(T const* x, i64 n) {
#if LIMBER_DETAIL_CLONES
  if (has_avx2()) return square_avx2(x, n);
#endif
  return square_plain(x, n);
}

/// Elements that a conversion buffer holds: six of them fit the L1 cache.
inline constexpr i64 block = 512;

/// One operand's stretch of a leaf as T: a pointer into the tensor itself, or a converted copy.
template <class T, access A>
class stretch {
 public:
  using pointer = std::conditional_t<A == access::in, T const*, T*>;

  stretch(operand<A> const& o, i64 t, i64 first) noexcept
      : tensor_((*o.list)[static_cast<std::size_t>(t)]),
        round_(o.round != nullptr ? o.round[t] : rounding{}),
        origin_(o.origin != nullptr ? o.origin[t] : 0),
        first_(first) {}

  [[nodiscard]] bool direct() const noexcept { return tensor_.type == dtype_of<T>; }

  [[nodiscard]] pointer load(i64 at, i64 n, T* buffer) const {
    if (direct()) return reinterpret_cast<T*>(tensor_.data) + first_ + at;
    if constexpr (A != access::out) convert([&](auto* p) { read(p + first_ + at, n, buffer); });
    return buffer;
  }

  void store(i64 at, i64 n, T const* buffer) const {
    if constexpr (A != access::in)
      if (!direct()) convert([&](auto* p) { write(p + first_ + at, n, buffer, first_ + at); });
  }

 private:
  // Only 16-bit storage (and f32 beside f64) is ever converted.
  template <class F>
  void convert(F const& f) const {
    switch (tensor_.type) {
      case dtype::bf16: return f(reinterpret_cast<bf16*>(tensor_.data));
      case dtype::f16: return f(reinterpret_cast<f16*>(tensor_.data));
      case dtype::f32: return f(reinterpret_cast<float*>(tensor_.data));
      default: break;
    }
  }
  template <class S>
  static void read(S const* from, i64 n, T* to) {
    loop([](T& y, S const& x) { y = static_cast<T>(static_cast<float>(x)); }, n, to, from);
  }
  template <class S>
  void write(S* to, i64 n, T const* from, i64 index) const {
    if constexpr (std::is_same_v<S, float>) {
      for (i64 i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
    } else if (round_.stochastic) {
      for (i64 i = 0; i < n; ++i) to[i] = S(static_cast<float>(from[i]), round_.bits(origin_ + index + i));
    } else {
      loop([](S& y, T const& x) { y = S(static_cast<float>(x)); }, n, to, from);
    }
  }

  tensor_view tensor_;
  rounding round_;
  i64 origin_;
  i64 first_;
};

template <class T, class F, std::size_t... K, access... A>
void run_stretches(F const& f, i64 n, std::index_sequence<K...>, stretch<T, A> const&... x) {
  if ((x.direct() && ...)) return loop(f, n, x.load(0, n, nullptr)...);
  alignas(64) T buffer[sizeof...(A)][block];
  for (i64 at = 0; at < n; at += block) {
    i64 const m = n - at < block ? n - at : block;
    loop(f, m, x.load(at, m, buffer[K])...);
    (x.store(at, m, buffer[K]), ...);
  }
}

template <class T, class F, std::size_t... K, access... A>
void run_stretches_for(T* y, F const& f, i64 n, std::index_sequence<K...>, stretch<T, A> const&... x) {
  if ((x.direct() && ...)) return loop_result(f, n, y, x.load(0, n, nullptr)...);
  alignas(64) T buffer[sizeof...(A)][block];
  for (i64 at = 0; at < n; at += block) {
    i64 const m = n - at < block ? n - at : block;
    loop_result(f, m, y + at, x.load(at, m, buffer[K])...);
    (x.store(at, m, buffer[K]), ...);
  }
}

// Block by block into `y`, and `then(first, elements)` after each.
template <class Y, class F, class Then, std::size_t... K, class T, access... A>
void stretch_results(Y* y, F const& f, i64 n, std::index_sequence<K...>, Then const& then,
                     stretch<T, A> const&... x) {
  alignas(64) T buffer[sizeof...(A)][block];
  for (i64 at = 0; at < n; at += block) {
    i64 const m = n - at < block ? n - at : block;
    loop_result(f, m, y, x.load(at, m, buffer[K])...);
    (x.store(at, m, buffer[K]), ...);
    then(at, m);
  }
}

/// Calls f for `n` elements of tensor `t` from `first`; all operands directly, or block by block.
template <class T, class F, access... A>
void run_leaf(F const& f, i64 t, i64 first, i64 n, operand<A> const&... lists) {
  run_stretches<T>(f, n, std::index_sequence_for<operand<A>...>{}, stretch<T, A>(lists, t, first)...);
}

/// The same, and the sum of squares of what f returns; the second is zero unless f returns two values.
template <class T, class F, access... A>
two<square_sum<T>> norm_leaf(F const& f, i64 t, i64 first, i64 n, operand<A> const&... lists) {
  if constexpr (std::is_same_v<F, identity> && sizeof...(A) == 1) {
    // The norm of a list as it lies there: nothing to write down first.
    stretch<T, A...> const x(lists..., t, first);
    if (x.direct()) return {square_of(static_cast<T const*>(x.load(0, n, nullptr)), n), {}};
  }
  constexpr auto operands = std::index_sequence_for<operand<A>...>{};
  using result = decltype(f(std::declval<std::conditional_t<A == access::in, T const&, T&>>()...));
  if constexpr (norms_in<result> == 2) {
    alignas(64) T y[leaf_size], z[leaf_size];
    two<T> both[block];
    stretch_results(
        both, f, n, operands,
        [&](i64 at, i64 m) {
          for (i64 i = 0; i < m; ++i) {
            y[at + i] = both[i].first;
            z[at + i] = both[i].second;
          }
        },
        stretch<T, A>(lists, t, first)...);
    return {square_of(y, n), square_of(z, n)};
  } else {
    alignas(64) T y[leaf_size];
    run_stretches_for<T>(y, f, n, operands, stretch<T, A>(lists, t, first)...);
    return {square_of(y, n), {}};
  }
}

}  // namespace limber::detail

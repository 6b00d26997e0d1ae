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

/// Elements that a conversion buffer holds: six of them fit the L1 cache.
inline constexpr i64 block_elements = 512;
/// Lists that one call can work on.
inline constexpr int most_operands = 12;

/// A list and what happens to it, as loops that are compiled once see it.
struct host_operand {
  tensor_list const* list;
  access_mode how;
  rounding const* round;
  i64 const* origin;
};
template <access_mode A>
[[nodiscard]] host_operand host_operand_of(operand<A> const& o) noexcept {
  return {o.list, A, o.round, o.origin};
}

/// A leaf under way: block by block where something is converted, at once where nothing is.
struct leaf {
  host_operand const* operands;
  int count;
  bool wide;                 ///< arithmetic in double
  i64 tensor;                ///< index into the lists
  i64 first;                 ///< the leaf's first element in the tensor
  i64 n;                     ///< its elements
  i64 step;                  ///< elements of a block
  std::byte* buffer;         ///< `block_elements` elements for each operand; used where one is converted
  i64 at = 0;                ///< the block under way begins here
  i64 m = 0;                 ///< and has so many elements
  void* x[most_operands]{};  ///< pointers to the block, in the arithmetic type

  /// Stores the block under way and loads the next. @return its elements; 0 behind the last
  [[nodiscard]] i64 next();

 private:
  template <class T>
  void load();
  template <class T>
  void store();
};

template <class F, class... P>
LIMBER_DETAIL_PLAIN inline void loop_plain(F const& f, i64 n, P* __restrict... x) {
  for (i64 i = 0; i < n; ++i) f(x[i]...);
}

template <class F, class T, class... P>
LIMBER_DETAIL_PLAIN inline void loop_result_plain(F const& f, i64 n, T* __restrict y, P* __restrict... x) {
  for (i64 i = 0; i < n; ++i) y[i] = f(x[i]...);
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

/// Source F over operands A in arithmetic type T: all that is compiled for each.
template <class T, class F, access_mode... A>
struct leaf_loop {
  using functor = std::remove_cvref_t<decltype(functor_of<T>(std::declval<F const&>(), i64{}))>;

  /// Calls the functor for every element.
  static void each(void const* source, leaf& l) {
    decltype(auto) f = functor_of<T>(*static_cast<F const*>(source), l.tensor);
    while (i64 const m = l.next()) [&]<std::size_t... K>(std::index_sequence<K...>) {
        loop(f, m, static_cast<pointer<A>>(l.x[K])...);
      }
    (std::index_sequence_for<operand<A>...>{});
  }

  /// What the functor returns for an element.
  template <class Functor = functor>
  using result = decltype(std::declval<Functor const&>()(
      std::declval<std::conditional_t<A == access_mode::in, T const&, T&>>()...));

  /// The same, and writes what it returns to y, or to y and z.
  static void measure(void const* source, leaf& l, void* to, [[maybe_unused]] void* second) {
    decltype(auto) f = functor_of<T>(*static_cast<F const*>(source), l.tensor);
    T* const y = static_cast<T*>(to);
    if constexpr (norms_in<result<>> == 2) {
      two<T> both[block_elements];
      if (l.step > block_elements) l.step = block_elements;
      while (i64 const m = l.next()) {
        [&]<std::size_t... K>(std::index_sequence<K...>) {
          loop_result(f, m, both, static_cast<pointer<A>>(l.x[K])...);
        }
        (std::index_sequence_for<operand<A>...>{});
        T* const z = static_cast<T*>(second);
        for (i64 i = 0; i < m; ++i) {
          y[l.at + i] = both[i].first;
          z[l.at + i] = both[i].second;
        }
      }
    } else {
      while (i64 const m = l.next()) [&]<std::size_t... K>(std::index_sequence<K...>) {
          loop_result(f, m, y + l.at, static_cast<pointer<A>>(l.x[K])...);
        }
      (std::index_sequence_for<operand<A>...>{});
    }
  }

 private:
  template <access_mode How>
  using pointer = std::conditional_t<How == access_mode::in, T const*, T*>;
};

/// The two loops of `each`, by arithmetic type.
struct each_code {
  void (*narrow)(void const*, leaf&);
  void (*wide)(void const*, leaf&);
};
template <class F, access_mode... A>
inline constexpr each_code each_code_of{&leaf_loop<float, F, A...>::each, &leaf_loop<double, F, A...>::each};

/// Those of `measure`; `plain`: the norm of a list as it lies there, for which nothing needs to be written.
struct measure_code {
  void (*narrow)(void const*, leaf&, void*, void*);
  void (*wide)(void const*, leaf&, void*, void*);
  int sums;  ///< norms that it finds out
  bool plain;
};
template <class F, access_mode... A>
inline constexpr measure_code measure_code_of{&leaf_loop<float, F, A...>::measure,
                                              &leaf_loop<double, F, A...>::measure,
                                              norms_in<typename leaf_loop<float, F, A...>::template result<>>,
                                              std::is_same_v<F, identity> && sizeof...(A) == 1};

}  // namespace limber::detail

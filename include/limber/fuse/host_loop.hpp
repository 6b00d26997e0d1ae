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
// hardware is a call. Contraction is switched off, because it would change bits between the two. The plain
// one is for old processors then: in the header-only form it is compiled for size.
#if defined(LIMBER_COMPILED)
#define LIMBER_DETAIL_FOR_SIZE
#else
#define LIMBER_DETAIL_FOR_SIZE cold,
#endif
#if defined(__x86_64__) && !defined(__CUDACC__) && (defined(__GNUC__) || defined(__clang__))
#define LIMBER_DETAIL_CLONES 1
#if defined(__clang__)
#define LIMBER_DETAIL_PLAIN __attribute__((LIMBER_DETAIL_FOR_SIZE flatten))
#define LIMBER_DETAIL_AVX2 __attribute__((target("avx2,fma"), flatten))
#define LIMBER_DETAIL_LIGHT LIMBER_DETAIL_AVX2
#else
#define LIMBER_DETAIL_PLAIN __attribute__((LIMBER_DETAIL_FOR_SIZE optimize("fp-contract=off"), flatten))
#define LIMBER_DETAIL_AVX2 __attribute__((target("avx2,fma"), optimize("O3", "fp-contract=off"), flatten))
#define LIMBER_DETAIL_LIGHT          \
  __attribute__((target("avx2,fma"), \
                 optimize("tree-loop-vectorize", "vect-cost-model=dynamic", "fp-contract=off"), flatten))
#endif
#else
#define LIMBER_DETAIL_CLONES 0
#define LIMBER_DETAIL_PLAIN
#endif

// Lists do not overlap. G++ forgets what `restrict` says of a function that it has inlined; the pragma it
// keeps.
#if defined(__CUDACC__)
#define LIMBER_DETAIL_BLOCK __attribute__((noinline))
#define LIMBER_DETAIL_INDEPENDENT
#elif defined(__clang__) || !defined(__GNUC__)
#define LIMBER_DETAIL_BLOCK inline
#define LIMBER_DETAIL_INDEPENDENT
#else
#define LIMBER_DETAIL_BLOCK __attribute__((always_inline)) inline
#define LIMBER_DETAIL_INDEPENDENT _Pragma("GCC ivdep")
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
  std::byte* buffer;         ///< `block_elements` elements for each operand; used where one is converted
  i64 (*advance)(leaf&);     ///< by address: loops are flattened, and this is no part of them
  bool wide = false;         ///< arithmetic in double
  i64 tensor = 0;            ///< index into the lists
  i64 first = 0;             ///< the leaf's first element in the tensor
  i64 n = 0;                 ///< its elements
  i64 step = leaf_size;      ///< elements of a block
  i64 at = 0;                ///< the block under way begins here
  i64 m = 0;                 ///< and has so many elements
  void* x[most_operands]{};  ///< pointers to the block, in the arithmetic type

  /// Stores the block under way and loads the next. @return its elements; 0 behind the last
  [[nodiscard]] i64 next() { return advance(*this); }
};

/// Index into a pair of functions: the plain one, or that for AVX2.
[[nodiscard]] inline int best_clone() noexcept {
#if LIMBER_DETAIL_CLONES
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 1 : 0;
#else
  return 0;
#endif
}

/// Source F over operands in arithmetic type T, of which some are written: all that is compiled for each.
/// Calls the functor for every element; if `Measured` writes what it returns to y, or to y and z.
template <class T, bool Measured, class F, bool... Written>
struct leaf_loop {
  using functor = std::remove_cvref_t<decltype(functor_of<T>(std::declval<F const&>(), i64{}))>;
  using result =
      decltype(std::declval<functor const&>()(std::declval<std::conditional_t<Written, T&, T const&>>()...));

  LIMBER_DETAIL_PLAIN static void plain(void const* source, leaf& l, void* y, void* z) {
    run(source, l, y, z, std::make_index_sequence<sizeof...(Written)>{});
  }
#if LIMBER_DETAIL_CLONES
  LIMBER_DETAIL_AVX2 static void avx2(void const* source, leaf& l, void* y, void* z) {
    run(source, l, y, z, std::make_index_sequence<sizeof...(Written)>{});
  }
#else
  static constexpr auto avx2 = &plain;
#endif

 private:
  template <class V>
  using kept = std::conditional_t<std::is_trivially_copyable_v<V>, V const, V const&>;

  template <std::size_t... K>
  LIMBER_DETAIL_BLOCK static void run(void const* source, leaf& l, void* y, void* z,
                                      std::index_sequence<K...>) {
    kept<functor> f = functor_of<T>(*static_cast<F const*>(source), l.tensor);
    while (i64 const m = l.next()) {
      i64 const at = Measured ? l.at : 0;
      block(f, m, static_cast<T*>(y) + at, static_cast<T*>(z) + at,
            static_cast<std::conditional_t<Written, T*, T const*>>(l.x[K])...);
    }
  }
  template <class... P>
  LIMBER_DETAIL_BLOCK static void block(functor const& f, i64 n, [[maybe_unused]] T* __restrict y,
                                        [[maybe_unused]] T* __restrict z, P* __restrict... x) {
    LIMBER_DETAIL_INDEPENDENT
    for (i64 i = 0; i < n; ++i) {
      if constexpr (!Measured) {
        f(x[i]...);
      } else if constexpr (norms_in<result> == 2) {
        auto const both = f(x[i]...);
        y[i] = both.first;
        z[i] = both.second;
      } else {
        y[i] = f(x[i]...);
      }
    }
  }
};

/// The loops of `each` or `measure`, plain and for AVX2.
struct leaf_code {
  using loop = void (*)(void const* source, leaf&, void* y, void* z);
  loop narrow[2], wide[2];  ///< by arithmetic type
  int sums;                 ///< norms that it finds out
  bool as_it_lies;          ///< the norm of a list as it is, for which nothing needs to be written

  [[nodiscard]] loop best(bool in_double) const noexcept { return (in_double ? wide : narrow)[best_clone()]; }
};
template <bool Measured, class F, bool... Written>
inline constexpr leaf_code leaf_code_of{
    {leaf_loop<float, Measured, F, Written...>::plain, leaf_loop<float, Measured, F, Written...>::avx2},
    {leaf_loop<double, Measured, F, Written...>::plain, leaf_loop<double, Measured, F, Written...>::avx2},
    norms_in<typename leaf_loop<float, Measured, F, Written...>::result>,
    std::is_same_v<F, identity> && sizeof...(Written) == 1};

}  // namespace limber::detail

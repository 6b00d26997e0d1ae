// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The operands of one tensor in a kernel: loads, calls of the functor and stores for groups of elements.

#include <limber/cuda/operand_table.hpp>
#include <limber/cuda/storage.hpp>
#include <limber/cuda/unroll.hpp>
#include <limber/fuse/executor.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace limber::gpu {

namespace detail {

// A number that is a type; std::integral_constant is not for devices.
template <std::size_t K>
struct place {
  LIMBER_HD constexpr operator std::size_t() const noexcept { return K; }
};

template <class F, std::size_t... K>
LIMBER_DETAIL_INLINE void for_each_index(F const& f, std::index_sequence<K...>) {
  (f(place<K>{}), ...);
}

/// What a functor gets: T const& of what is only read, T& otherwise.
template <access_mode A, class T>
[[nodiscard]] LIMBER_DETAIL_INLINE std::conditional_t<A == access_mode::in, T const&, T&> as_argument(
    T& x) noexcept {
  return x;
}

// Tells the compiler that p is global memory, where it can be told.
template <class P>
LIMBER_DETAIL_INLINE P* in_global_memory(P* p) noexcept {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(p));
#endif
  return p;
}

}  // namespace detail

/// How groups of elements are accessed.
enum class path {
  direct,   ///< every operand is stored as T, 16 bytes at a time: nothing is converted
  aligned,  ///< 16 bytes at a time, whatever the types
  any,      ///< as wide as each operand's address allows
};

/// What F, or the functor that the source F makes for a tensor, returns for elements of type T.
template <class T, class F, access_mode... A>
using result_of = decltype(functor_of<T>(std::declval<F const&>(), i64{})(
    std::declval<std::conditional_t<A == access_mode::in, T const&, T&>>()...));

/// One tensor of every operand list.
///
/// Access   if a position exists where all of them are aligned to 16 bytes, `phase` is the first such
///          and from there on every access is of 16 bytes; else phase is 0 and each operand is accessed
///          as its own address allows.
template <class T, access_mode... A>
class tensor_operands {
 public:
  static constexpr int size = static_cast<int>(sizeof...(A));
  [[nodiscard]] LIMBER_HD static constexpr access_mode how(std::size_t k) noexcept {
    access_mode const all[] = {A...};
    return all[k];
  }

  /// @param may_peel  false: the first element has to be in a group, so phase is 0
  LIMBER_HD tensor_operands(operand_binding const* list, std::int32_t t, bool may_peel)
      : list_(list), tensor_(t) {
    int period = 0;
    bool direct = true;
    LIMBER_DETAIL_UNROLL
    for (int k = 0; k < size; ++k) {
      entry_[k] = list[k].table[t];
      entry_[k].data = detail::in_global_memory(entry_[k].data);
      if (entry_[k].modulus > period) {
        period = entry_[k].modulus;
        phase_ = entry_[k].phase;
      }
      direct = direct && entry_[k].type == dtype_of<T>;
    }
    bool congruent = may_peel || phase_ == 0;
    LIMBER_DETAIL_UNROLL
    for (int k = 0; k < size; ++k)
      congruent = congruent && (phase_ & (entry_[k].modulus - 1)) == entry_[k].phase;
    if (!congruent) phase_ = 0;
    if (congruent) way_ = direct ? path::direct : path::aligned;
  }

  /// Elements before the first group.
  [[nodiscard]] LIMBER_HD int phase() const noexcept { return phase_; }
  /// The best way to access groups.
  [[nodiscard]] LIMBER_HD path way() const noexcept { return way_; }

  /// Groups of W elements: load all, then call f, then store all.
  ///
  /// Group j of N is number `first + 32 j`, counted from element `begin`; those from `groups` on do not
  /// exist. `take(j, i, y)` gets what f returned for element i of group j.
  template <path Way, int W, int N, class F, class Take>
  LIMBER_DETAIL_INLINE void groups(F const& f, i64 begin, int first, int groups, Take const& take) const {
    std::uint32_t raw[sizeof...(A)][N][most_words<T, W>];
    detail::for_each_index(
        [&](auto k) {
          if constexpr (how(k) != access_mode::out) {
            LIMBER_DETAIL_UNROLL
            for (int j = 0; j < N; ++j)
              if (first + 32 * j < groups) load<Way, W>(k, begin + (first + 32 * j) * W, raw[k][j]);
          }
        },
        indices{});
    LIMBER_DETAIL_UNROLL
    for (int j = 0; j < N; ++j) {
      if (first + 32 * j >= groups) break;
      i64 const at = begin + (first + 32 * j) * W;
      T x[sizeof...(A)][W];
      detail::for_each_index(
          [&](auto k) {
            if constexpr (how(k) == access_mode::out) {
              LIMBER_DETAIL_UNROLL
              for (int i = 0; i < W; ++i) x[k][i] = T(0);
            } else {
              unpack<T, W>(raw[k][j], type_of<Way>(k), x[k]);
            }
          },
          indices{});
      LIMBER_DETAIL_UNROLL
      for (int i = 0; i < W; ++i) call(f, indices{}, x, i, [&](auto const& y) { take(j, i, y); });
      detail::for_each_index(
          [&](auto k) {
            if constexpr (how(k) != access_mode::in)
              store_values<T, W>(address(entry_[k], type_of<Way>(k), at), type_of<Way>(k), width_of<Way>(k),
                                 x[k], rounding_of(k), at);
          },
          indices{});
    }
  }

  /// One element. `take(y)` gets what f returned.
  template <class F, class Take>
  LIMBER_DETAIL_INLINE void one(F const& f, i64 at, Take const& take) const {
    T x[sizeof...(A)][1];
    detail::for_each_index(
        [&](auto k) {
          x[k][0] = T(0);
          if constexpr (how(k) != access_mode::out)
            x[k][0] = load_one<T>(address(entry_[k], entry_[k].type, at), entry_[k].type);
        },
        indices{});
    call(f, indices{}, x, 0, take);
    detail::for_each_index(
        [&](auto k) {
          if constexpr (how(k) != access_mode::in)
            store_one<T>(address(entry_[k], entry_[k].type, at), entry_[k].type, x[k][0], rounding_of(k), at);
        },
        indices{});
  }

 private:
  using indices = std::index_sequence_for<operand<A>...>;

  [[nodiscard]] LIMBER_HD static std::byte* address(operand_entry const& e, dtype type, i64 at) noexcept {
    return e.data + at * size_of(type);
  }

  [[nodiscard]] LIMBER_HD store_rounding rounding_of(std::size_t k) const noexcept {
    return {list_[k].round, list_[k].origin, tensor_};
  }

  template <path Way>
  [[nodiscard]] LIMBER_HD dtype type_of(std::size_t k) const noexcept {
    return Way == path::direct ? dtype_of<T> : entry_[k].type;
  }
  template <path Way>
  [[nodiscard]] LIMBER_HD int width_of(std::size_t k) const noexcept {
    return Way == path::any ? entry_[k].width : widest;
  }

  template <path Way, int W>
  LIMBER_DETAIL_INLINE void load(std::size_t k, i64 at, std::uint32_t* raw) const {
    dtype const type = type_of<Way>(k);
    load_raw<T, W>(address(entry_[k], type, at), type, width_of<Way>(k), raw);
  }

  LIMBER_NO_EXEC_CHECK
  template <class F, std::size_t... K, int W, class Take>
  LIMBER_DETAIL_INLINE static void call(F const& f, std::index_sequence<K...>, T (&x)[sizeof...(A)][W], int i,
                                        Take const& take) {
    if constexpr (std::is_void_v<result_of<T, F, A...>>)
      f(detail::as_argument<A>(x[K][i])...);
    else
      take(f(detail::as_argument<A>(x[K][i])...));
  }

  operand_entry entry_[sizeof...(A)];
  operand_binding const* list_;  // read when needed: parameters of a kernel take no registers
  std::int32_t tensor_;
  int phase_ = 0;
  path way_ = path::any;
};

}  // namespace limber::gpu

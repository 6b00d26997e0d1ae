// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The host executor: serial, or with OpenMP where the compilation has it.

#include <limber/core/function_ref.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/host_loop.hpp>

#include <utility>
#include <vector>

namespace limber {

/// Runs functors on the host, one leaf (4,096 elements) after the other.
///
/// Threads  `host{}` is serial; `host{n}` uses n OpenMP threads when the unit that defines it (the user's, or
///          the library's in the compiled form) is built with -fopenmp, and is an error otherwise. The bits
///          do not depend on it.
/// Cost     one pass over memory per call and one indirect call per leaf; 16-bit lists are converted through
///          buffers in the L1 cache.
/// Memory   `norm` keeps its partial sums; nothing is allocated once a list has been seen.
class host {
 public:
  /// Work of a host executor is finished when the call returns.
  struct event {};

  explicit host(int threads = 1);

  [[nodiscard]] slab make(layout const& where) const;

  template <class F, access_mode... A>
  void each(F const& f, operand<A>... lists) {
    static_assert(sizeof...(A) >= 1 && sizeof...(A) <= detail::most_operands);
    if constexpr (requires { f.otherwise(); })
      if (limber::skips(f)) return each(f.otherwise(), lists...);
    detail::host_operand const operands[] = {detail::host_operand_of(lists)...};
    each_leaf(detail::leaf_code_of<false, F, A != access_mode::in...>, &f, operands, sizeof...(A));
  }

  template <class F, access_mode... A>
  void measure(norm_memory& to, F const& f, operand<A>... lists) {
    static_assert(sizeof...(A) >= 1 && sizeof...(A) <= detail::most_operands);
    detail::host_operand const operands[] = {detail::host_operand_of(lists)...};
    measure_leaves(to, detail::leaf_code_of<true, F, A != access_mode::in...>, &f, limber::skips(f), operands,
                   sizeof...(A));
  }

  template <class F, access_mode... A>
  norm_report const& norm(F const& f, operand<A>... lists) {
    tensor_list const* const all[] = {lists.list...};
    norm_memory& own = own_norms(static_cast<i64>(all[0]->size()));
    measure(own, f, lists...);
    return report(own);
  }

  norm_report const& report(norm_memory const& m);

  template <class F>
  void run(i64 n, F const& f) const {
    for (i64 i = 0; i < n; ++i) f(i);
  }

  template <class T>
  [[nodiscard]] shared_array<T> share(i64 n) const {
    return share_bytes(n * static_cast<i64>(sizeof(T))).template as<T>();
  }
  [[nodiscard]] shared_array<std::byte> share_bytes(i64 bytes) const;
  template <class T>
  void publish(shared_array<T> const&) const noexcept {}
  template <class T>
  void collect(shared_array<T> const&) const noexcept {}

  [[nodiscard]] event record() const noexcept { return {}; }
  void wait(event) const noexcept {}

  [[nodiscard]] int threads() const noexcept { return threads_; }

 private:
  void each_leaf(detail::leaf_code const& code, void const* f, detail::host_operand const* operands,
                 int count);
  void measure_leaves(norm_memory& to, detail::leaf_code const& code, void const* f, bool skipped,
                      detail::host_operand const* operands, int count);
  void for_leaves(detail::host_operand const* operands, int count, i64 leaves,
                  function_ref<void(detail::leaf&, i64)> body) const;
  void summarize(tensor_list const& list, norm_memory& to, int sum);
  // A tensor's sums of squares, from its first leaf on.
  template <class T>
  [[nodiscard]] square_sum<T>* sums(int sum, i64 leaf) noexcept {
    return reinterpret_cast<square_sum<T>*>(leaves_[sum].data() + leaf * i64{sizeof(square_sum<double>)});
  }
  [[nodiscard]] norm_memory& own_norms(i64 tensors);

  int threads_;
  std::vector<std::byte> leaves_[2], totals_;  // 16 bytes a sum
  norm_memory own_;
  norm_report report_;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/fuse/impl/host.ipp>
#endif

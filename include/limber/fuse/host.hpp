// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The host executor: serial, or with OpenMP where the compilation has it.

#include <limber/fuse/executor.hpp>
#include <limber/fuse/host_loop.hpp>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <tuple>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace limber {

/// Runs functors on the host, one leaf (4,096 elements) after the other.
///
/// Threads  `host{}` is serial; `host{n}` uses n OpenMP threads when compiled with -fopenmp and is an
///          error otherwise. The bits do not depend on it.
/// Cost     one pass over memory per call; 16-bit lists are converted through buffers in the L1 cache.
/// Memory   `norm` keeps its partial sums; nothing is allocated once a list has been seen.
class host {
 public:
  /// Work of a host executor is finished when the call returns.
  struct event {};

  explicit host(int threads = 1) : threads_(threads) {
    expects(threads >= 1, "host: threads must be at least 1, got ", threads);
#if !defined(_OPENMP)
    expects(threads == 1, "host: ", threads, " threads need a build with OpenMP; this one has none");
#endif
  }

  [[nodiscard]] slab make(layout const& where) const {
    constexpr std::size_t line = 64;
    auto const bytes = static_cast<std::size_t>(round_up(std::max<i64>(where.bytes, 1), line));
    auto* const p = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{line}));
    std::fill_n(p, bytes, std::byte{0});
    return slab_over({p, [](std::byte* q) { ::operator delete (q, std::align_val_t{line}); }}, where);
  }

  template <class F, access... A>
  void each(F const& f, operand<A>... lists) {
    if constexpr (requires { f.otherwise(); })
      if (limber::skips(f)) return each(f.otherwise(), lists...);
    i64 const leaves = check_shapes(lists...);
    for_leaves(std::get<0>(std::tie(lists...)).list, leaves, [&](i64 t, i64 first, i64 n, i64) {
      if (wide(t, lists...))
        detail::run_leaf<double>(functor_of<double>(f, t), t, first, n, lists...);
      else
        detail::run_leaf<float>(functor_of<float>(f, t), t, first, n, lists...);
    });
  }

  template <class F, access... A>
  void measure(norm_memory& to, F const& f, operand<A>... lists) {
    i64 const leaves = check_shapes(lists...);
    tensor_list const& list = *std::get<0>(std::tie(lists...)).list;
    expects(to.tensors == static_cast<i64>(list.size()), "measure: memory for ", to.tensors, " norms, but ",
            list.size(), " tensors");
    for (auto* parts : {&narrow_[0], &narrow_[1]}) parts->resize(static_cast<std::size_t>(leaves));
    for (auto* parts : {&wide_[0], &wide_[1]}) parts->resize(static_cast<std::size_t>(leaves));
    for (std::size_t t = 0; t < list.size(); ++t) to.is_wide[t] = wide(static_cast<i64>(t), lists...) ? 1 : 0;
    if (limber::skips(f)) {
      for (int k = 0; k < 2; ++k) {
        std::ranges::fill(narrow_[k], square_sum<float>{});
        std::ranges::fill(wide_[k], square_sum<double>{});
      }
    }
    for_leaves(&list, limber::skips(f) ? 0 : leaves, [&](i64 t, i64 first, i64 n, i64 leaf) {
      auto const k = static_cast<std::size_t>(leaf);
      if (to.is_wide[static_cast<std::size_t>(t)] != 0)
        put(wide_, k, detail::norm_leaf<double>(functor_of<double>(f, t), t, first, n, lists...));
      else
        put(narrow_, k, detail::norm_leaf<float>(functor_of<float>(f, t), t, first, n, lists...));
    });
    for (int sum = 0; sum < to.sums; ++sum) summarize(list, to, sum);
  }

  template <class F, access... A>
  norm_report const& norm(F const& f, operand<A>... lists) {
    auto const n = static_cast<i64>(std::get<0>(std::tie(lists...)).list->size());
    if (own_.tensors != n || own_.narrow.n == 0) own_ = make_norms(*this, n);
    measure(own_, f, lists...);
    return report(own_);
  }

  norm_report const& report(norm_memory const& m) {
    read_norms(m, report_);
    return report_;
  }

  template <class F>
  void run(i64 n, F const& f) const {
    for (i64 i = 0; i < n; ++i) f(i);
  }

  template <class T>
  [[nodiscard]] shared_array<T> share(i64 n) const {
    auto memory = std::make_shared<std::vector<T>>(static_cast<std::size_t>(n));
    T* const p = memory->data();
    return {p, p, n, std::move(memory)};
  }
  template <class T>
  void publish(shared_array<T> const&) const noexcept {}
  template <class T>
  void collect(shared_array<T> const&) const noexcept {}

  [[nodiscard]] event record() const noexcept { return {}; }
  void wait(event) const noexcept {}

  [[nodiscard]] int threads() const noexcept { return threads_; }

 private:
  [[nodiscard]] static i64 leaves_of(tensor_view const& t) noexcept {
    return (t.length + leaf_size - 1) / leaf_size;
  }

  template <access... A>
  [[nodiscard]] static bool wide(i64 t, operand<A> const&... lists) noexcept {
    return ((((*lists.list)[static_cast<std::size_t>(t)].type == dtype::f64)) || ...);
  }

  // Returns the number of leaves; lists that do not match are the caller's mistake.
  template <access... A>
  static i64 check_shapes(operand<A> const&... lists) {
    tensor_list const& first = *std::get<0>(std::tie(lists...)).list;
    i64 leaves = 0;
    auto same = [&](tensor_list const& l) {
      expects(l.size() == first.size(), "executor: lists of ", first.size(), " and ", l.size(), " tensors");
      for (std::size_t t = 0; t < l.size(); ++t) {
        expects(l[t].length == first[t].length, "executor: '", first[t].name, "' has ", first[t].length,
                " elements in one list and ", l[t].length, " in another");
        expects(is_floating(l[t].type), "executor: '", l[t].name, "' is ", name_of(l[t].type));
      }
    };
    (same(*lists.list), ...);
    for (auto const& t : first) leaves += leaves_of(t);
    return leaves;
  }

  // Calls body(tensor, first element, elements, leaf) for every leaf; each thread takes a run of them.
  template <class Body>
  void for_leaves(tensor_list const* list, i64 leaves, Body const& body) const {
    auto run = [&](i64 begin, i64 end) {
      i64 leaf = 0;
      for (i64 t = 0; t < static_cast<i64>(list->size()) && leaf < end; ++t) {
        tensor_view const& x = (*list)[static_cast<std::size_t>(t)];
        i64 const own = leaves_of(x);
        for (i64 k = std::max<i64>(0, begin - leaf); k < own && leaf + k < end; ++k)
          body(t, k * leaf_size, std::min(leaf_size, x.length - k * leaf_size), leaf + k);
        leaf += own;
      }
    };
#if defined(_OPENMP)
    if (threads_ > 1 && leaves > 1) {
#pragma omp parallel num_threads(threads_)
      {
        i64 const n = omp_get_num_threads(), i = omp_get_thread_num();
        run(leaves * i / n, leaves * (i + 1) / n);
      }
      return;
    }
#endif
    run(0, leaves);
  }

  template <class T>
  using sums_of = std::vector<square_sum<T>>;

  template <class T>
  static void put(sums_of<T> (&parts)[2], std::size_t leaf, two<square_sum<T>> const& sums) {
    parts[0][leaf] = sums.first;
    parts[1][leaf] = sums.second;
  }

  // Leaves to tensors, tensors to the total; that in double as soon as one tensor is.
  void summarize(tensor_list const& list, norm_memory& to, int sum) {
    auto const at = static_cast<std::size_t>(sum) * static_cast<std::size_t>(to.tensors + 1);
    bool const any_wide = to.facts(sum).any_wide;
    std::size_t leaf = 0;
    tensors_.resize(list.size());
    wide_tensors_.resize(list.size());
    for (std::size_t t = 0; t < list.size(); ++t) {
      auto const n = static_cast<std::size_t>(leaves_of(list[t]));
      auto entry = [&]<class T>(sums_of<T> const& part) {
        auto const s = tree_sum(std::span<square_sum<T> const>(part).subspan(leaf, n));
        wide_tensors_[t] = {static_cast<double>(s.s), s.e};
        return tensor_norm<T>{s, root_of(s)};
      };
      if (to.is_wide[t] != 0) {
        to.wide[at + t] = entry(wide_[sum]);
      } else {
        to.narrow[at + t] = entry(narrow_[sum]);
        tensors_[t] = to.narrow[at + t].sum;
      }
      leaf += n;
    }
    auto const last = at + list.size();
    if (any_wide) {
      auto const s = tree_sum(std::span<square_sum<double> const>(wide_tensors_));
      to.wide[last] = {s, root_of(s)};
      to.narrow[last] = {{static_cast<float>(s.s), s.e}, static_cast<float>(root_of(s))};
    } else {
      auto const s = tree_sum(std::span<square_sum<float> const>(tensors_));
      to.narrow[last] = {s, root_of(s)};
    }
  }

  int threads_;
  sums_of<float> narrow_[2], tensors_;
  sums_of<double> wide_[2], wide_tensors_;
  norm_memory own_;
  norm_report report_;
};

static_assert(executor<host>);

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/host.hpp>

#include <algorithm>
#include <new>
#include <span>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace limber {

namespace detail {

#if LIMBER_DETAIL_CLONES
template <class T>
LIMBER_DETAIL_AVX2 inline square_sum<T> square_avx2(T const* x, i64 n) {
  return leaf_square_sum(x, n);
}
#endif

template <class T>
LIMBER_DETAIL_PLAIN inline square_sum<T> square_plain(T const* x, i64 n) {
  return leaf_square_sum(x, n);
}

template <class T>
[[nodiscard]] inline square_sum<T> square_of(T const* x, i64 n) {
#if LIMBER_DETAIL_CLONES
  if (has_avx2()) return square_avx2(x, n);
#endif
  return square_plain(x, n);
}

[[nodiscard]] LIMBER_FN i64 leaves_of(tensor_view const& t) noexcept {
  return (t.length + leaf_size - 1) / leaf_size;
}

// Only 16-bit storage (and f32 beside f64) is ever converted.
template <class F>
void with_storage(tensor_view const& t, F const& f) {
  switch (t.type) {
    case dtype::bf16: return f(reinterpret_cast<bf16*>(t.data));
    case dtype::f16: return f(reinterpret_cast<f16*>(t.data));
    case dtype::f32: return f(reinterpret_cast<float*>(t.data));
    default: break;
  }
}

template <class T>
void leaf::load() {
  for (int k = 0; k < count; ++k) {
    tensor_view const& t = (*operands[k].list)[static_cast<std::size_t>(tensor)];
    if (t.type == dtype_of<T>) {
      x[k] = reinterpret_cast<T*>(t.data) + first + at;
      continue;
    }
    T* const to = reinterpret_cast<T*>(buffer) + k * block_elements;
    x[k] = to;
    if (operands[k].how == access_mode::out) continue;
    with_storage(t, [&](auto* p) {
      loop([](T& y, auto const& v) { y = static_cast<T>(static_cast<float>(v)); }, m, to,
           static_cast<std::remove_reference_t<decltype(*p)> const*>(p + first + at));
    });
  }
}

template <class T>
void leaf::store() {
  for (int k = 0; k < count; ++k) {
    host_operand const& o = operands[k];
    tensor_view const& t = (*o.list)[static_cast<std::size_t>(tensor)];
    if (o.how == access_mode::in || t.type == dtype_of<T>) continue;
    rounding const round = o.round != nullptr ? o.round[tensor] : rounding{};
    i64 const index = (o.origin != nullptr ? o.origin[tensor] : 0) + first + at;
    T const* const from = static_cast<T const*>(x[k]);
    with_storage(t, [&]<class S>(S* p) {
      S* const to = p + first + at;
      if constexpr (std::is_same_v<S, float>) {
        for (i64 i = 0; i < m; ++i) to[i] = static_cast<float>(from[i]);
      } else if (round.stochastic) {
        for (i64 i = 0; i < m; ++i) to[i] = S(static_cast<float>(from[i]), round.bits(index + i));
      } else {
        loop([](S& y, T const& v) { y = S(static_cast<float>(v)); }, m, to, from);
      }
    });
  }
}

LIMBER_FN i64 leaf::next() {
  if (m > 0 && step < leaf_size) wide ? store<double>() : store<float>();
  at += m;
  m = n - at < step ? n - at : step;
  if (m > 0) wide ? load<double>() : load<float>();
  return m;
}

// Lists that do not match are the caller's mistake. @return the number of leaves
[[nodiscard]] LIMBER_FN i64 check_shapes(host_operand const* operands, int count) {
  tensor_list const& first = *operands[0].list;
  for (int k = 0; k < count; ++k) {
    tensor_list const& l = *operands[k].list;
    expects(l.size() == first.size(), "executor: lists of ", first.size(), " and ", l.size(), " tensors");
    for (std::size_t t = 0; t < l.size(); ++t) {
      expects(l[t].length == first[t].length, "executor: '", first[t].name, "' has ", first[t].length,
              " elements in one list and ", l[t].length, " in another");
      expects(is_floating(l[t].type), "executor: '", l[t].name, "' is ", name_of(l[t].type));
    }
  }
  i64 leaves = 0;
  for (auto const& t : first) leaves += leaves_of(t);
  return leaves;
}

[[nodiscard]] LIMBER_FN bool is_wide(std::size_t t, host_operand const* operands, int count) noexcept {
  for (int k = 0; k < count; ++k)
    if ((*operands[k].list)[t].type == dtype::f64) return true;
  return false;
}

}  // namespace detail

LIMBER_FN host::host(int threads) : threads_(threads) {
  expects(threads >= 1, "host: threads must be at least 1, got ", threads);
#if !defined(_OPENMP)
  expects(threads == 1, "host: ", threads, " threads need a build with OpenMP; this one has none");
#endif
}

LIMBER_FN slab host::make(layout const& where) const {
  constexpr std::size_t line = 64;
  auto const bytes = static_cast<std::size_t>(round_up(std::max<i64>(where.bytes, 1), line));
  auto* const p = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{line}));
  std::fill_n(p, bytes, std::byte{0});
  return slab_over({p, [](std::byte* q) { ::operator delete (q, std::align_val_t{line}); }}, where);
}

// Calls body(leaf, its number) for every leaf; each thread takes a run of them.
template <class Body>
void host::for_leaves(detail::host_operand const* operands, int count, i64 leaves, Body const& body) const {
  tensor_list const& list = *operands[0].list;
  auto run = [&](i64 begin, i64 end) {
    alignas(64) std::byte buffer[detail::most_operands * detail::block_elements * sizeof(double)];
    detail::leaf l{operands, count, false, 0, 0, 0, leaf_size, buffer};
    i64 number = 0;
    for (std::size_t t = 0; t < list.size() && number < end; ++t) {
      i64 const own = detail::leaves_of(list[t]);
      if (own == 0) continue;
      l.tensor = static_cast<i64>(t);
      l.wide = detail::is_wide(t, operands, count);
      l.step = leaf_size;
      dtype const arithmetic = l.wide ? dtype::f64 : dtype::f32;
      for (int k = 0; k < count; ++k)
        if ((*operands[k].list)[t].type != arithmetic) l.step = detail::block_elements;
      for (i64 k = std::max<i64>(0, begin - number); k < own && number + k < end; ++k) {
        l.first = k * leaf_size;
        l.n = std::min(leaf_size, list[t].length - l.first);
        l.at = l.m = 0;
        body(l, number + k);
      }
      number += own;
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

LIMBER_FN void host::each_leaf(detail::each_code const& code, void const* f,
                               detail::host_operand const* operands, int count) {
  for_leaves(operands, count, detail::check_shapes(operands, count),
             [&](detail::leaf& l, i64) { (l.wide ? code.wide : code.narrow)(f, l); });
}

LIMBER_FN void host::measure_leaves(norm_memory& to, detail::measure_code const& code, void const* f,
                                    bool skipped, detail::host_operand const* operands, int count) {
  i64 const leaves = detail::check_shapes(operands, count);
  tensor_list const& list = *operands[0].list;
  expects(to.tensors == static_cast<i64>(list.size()), "measure: memory for ", to.tensors, " norms, but ",
          list.size(), " tensors");
  bool any_wide = false;
  for (std::size_t t = 0; t < list.size(); ++t) {
    to.is_wide[t] = detail::is_wide(t, operands, count) ? 1 : 0;
    any_wide = any_wide || to.is_wide[t] != 0;
  }
  for (int k = 0; k < 2; ++k) {
    narrow_[k].resize(static_cast<std::size_t>(leaves));
    wide_[k].resize(static_cast<std::size_t>(any_wide ? leaves : 0));
    if (!skipped) continue;
    std::fill(narrow_[k].begin(), narrow_[k].end(), square_sum<float>{});
    std::fill(wide_[k].begin(), wide_[k].end(), square_sum<double>{});
  }
  auto run = [&]<class T>(detail::leaf& l, std::size_t number, sums_of<T>* sums,
                          void (*loops)(void const*, detail::leaf&, void*, void*)) {
    if (code.plain && (*operands[0].list)[static_cast<std::size_t>(l.tensor)].type == dtype_of<T>) {
      (void)l.next();
      sums[0][number] = detail::square_of(static_cast<T const*>(l.x[0]), l.n);
      sums[1][number] = {};
      return;
    }
    alignas(64) T y[leaf_size], z[leaf_size];
    loops(f, l, y, z);
    sums[0][number] = detail::square_of(y, l.n);
    sums[1][number] = code.sums > 1 && to.sums > 1 ? detail::square_of(z, l.n) : square_sum<T>{};
  };
  for_leaves(operands, count, skipped ? 0 : leaves, [&](detail::leaf& l, i64 number) {
    auto const k = static_cast<std::size_t>(number);
    if (l.wide)
      run(l, k, wide_, code.wide);
    else
      run(l, k, narrow_, code.narrow);
  });
  for (int sum = 0; sum < to.sums; ++sum) summarize(list, to, sum);
}

LIMBER_FN norm_report const& host::report(norm_memory const& m) {
  read_norms(m, report_);
  return report_;
}

LIMBER_FN norm_memory& host::own_norms(i64 tensors) {
  if (own_.tensors != tensors || own_.narrow.n == 0) own_ = make_norms(*this, tensors);
  return own_;
}

// Leaves to tensors, tensors to the total; that in double as soon as one tensor is.
LIMBER_FN void host::summarize(tensor_list const& list, norm_memory& to, int sum) {
  auto const at = static_cast<std::size_t>(sum) * static_cast<std::size_t>(to.tensors + 1);
  bool const any_wide = to.facts(sum).any_wide;
  std::size_t leaf = 0;
  tensors_.resize(list.size());
  wide_tensors_.resize(list.size());
  for (std::size_t t = 0; t < list.size(); ++t) {
    auto const n = static_cast<std::size_t>(detail::leaves_of(list[t]));
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

}  // namespace limber

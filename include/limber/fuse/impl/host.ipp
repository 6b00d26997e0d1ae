// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/order.hpp>
#include <limber/fuse/host.hpp>

#include <new>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace limber {

namespace detail {

// f(x...), compiled as the loops are.
template <class F, class... X>
LIMBER_DETAIL_PLAIN void call_plain(F const& f, X... x) {
  f(x...);
}
#if LIMBER_DETAIL_CLONES
template <class F, class... X>
LIMBER_DETAIL_LIGHT void call_avx2(F const& f, X... x) {
  f(x...);
}
#endif
template <class F, class... X>
void call_best(F const& f, X... x) {
#if LIMBER_DETAIL_CLONES
  if (best_clone() != 0) return call_avx2(f, x...);
#endif
  call_plain(f, x...);
}

template <class T>
void square_of(T const* x, i64 n, square_sum<T>& to) {
  square_column<T> total;
  call_best([](T const* p, i64 m, square_column<T>* sum) { *sum = sum_columns(p, m); }, x, n, &total);
  to = leaf_sum(total);
}

[[nodiscard]] LIMBER_FN i64 leaves_of(tensor_view const& t) noexcept {
  return (t.length + leaf_size - 1) / leaf_size;
}

LIMBER_FN void to_floats(dtype type, std::byte const* from, i64 n, float* to) {
  call_best(
      [](dtype t, void const* p, i64 m, float* y) {
        if (t == dtype::bf16)
          for (i64 i = 0; i < m; ++i) y[i] = static_cast<float>(static_cast<bf16 const*>(p)[i]);
        else
          for (i64 i = 0; i < m; ++i) y[i] = static_cast<float>(static_cast<f16 const*>(p)[i]);
      },
      type, from, n, to);
}
LIMBER_FN void from_floats(dtype type, float const* from, i64 n, std::byte* to) {
  call_best(
      [](dtype t, float const* x, i64 m, void* p) {
        if (t == dtype::bf16)
          for (i64 i = 0; i < m; ++i) static_cast<bf16*>(p)[i] = bf16(x[i]);
        else
          for (i64 i = 0; i < m; ++i) static_cast<f16*>(p)[i] = f16(x[i]);
      },
      type, from, n, to);
}
// The same, rounded by the bits of `round` from `index` on.
LIMBER_FN void from_floats(dtype type, float const* from, i64 n, std::byte* to, rounding const& round,
                           i64 index) {
  for (i64 i = 0; i < n; ++i) {
    std::uint32_t const random = round.bits(index + i);
    if (type == dtype::bf16)
      reinterpret_cast<bf16*>(to)[i] = bf16(from[i], random);
    else
      reinterpret_cast<f16*>(to)[i] = f16(from[i], random);
  }
}

// Only 16-bit storage (and f32 beside f64) is ever converted.
LIMBER_FN void load(leaf& l) {
  dtype const arithmetic = l.wide ? dtype::f64 : dtype::f32;
  float floats[block_elements];
  for (int k = 0; k < l.count; ++k) {
    tensor_view const& t = (*l.operands[k].list)[static_cast<std::size_t>(l.tensor)];
    std::byte* const from = t.data + (l.first + l.at) * size_of(t.type);
    l.x[k] = from;
    if (t.type == arithmetic) continue;
    l.x[k] = l.buffer + k * block_elements * size_of(arithmetic);
    if (l.operands[k].how == access_mode::out) continue;
    float* const to = l.wide ? floats : static_cast<float*>(l.x[k]);
    if (t.type == dtype::f32)
      std::memcpy(to, from, static_cast<std::size_t>(l.m) * sizeof(float));
    else
      to_floats(t.type, from, l.m, to);
    if (l.wide)
      for (i64 i = 0; i < l.m; ++i) static_cast<double*>(l.x[k])[i] = to[i];
  }
}

LIMBER_FN void store(leaf const& l) {
  dtype const arithmetic = l.wide ? dtype::f64 : dtype::f32;
  float floats[block_elements];
  for (int k = 0; k < l.count; ++k) {
    host_operand const& o = l.operands[k];
    tensor_view const& t = (*o.list)[static_cast<std::size_t>(l.tensor)];
    if (o.how == access_mode::in || t.type == arithmetic) continue;
    float* const from = l.wide ? floats : static_cast<float*>(l.x[k]);
    if (l.wide)
      for (i64 i = 0; i < l.m; ++i) from[i] = static_cast<float>(static_cast<double*>(l.x[k])[i]);
    i64 const at = l.first + l.at;
    std::byte* const to = t.data + at * size_of(t.type);
    rounding const round = o.round != nullptr ? o.round[l.tensor] : rounding{};
    if (t.type == dtype::f32)
      std::memcpy(to, from, static_cast<std::size_t>(l.m) * sizeof(float));
    else if (round.stochastic)
      from_floats(t.type, from, l.m, to, round, (o.origin != nullptr ? o.origin[l.tensor] : 0) + at);
    else
      from_floats(t.type, from, l.m, to);
  }
}

LIMBER_FN i64 next_block(leaf& l) {
  if (l.m > 0 && l.step < leaf_size) store(l);
  l.at += l.m;
  l.m = l.n - l.at < l.step ? l.n - l.at : l.step;
  if (l.m > 0) load(l);
  return l.m;
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
      if (!is_floating(l[t].type)) expects(false, "executor: '", l[t].name, "' is ", name_of(l[t].type));
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

LIMBER_COLD LIMBER_FN slab host::make(layout const& where) const {
  constexpr std::size_t line = 64;
  auto const bytes = static_cast<std::size_t>(round_up(detail::greatest<i64>(where.bytes, 1), line));
  auto* const p = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{line}));
  std::memset(p, 0, bytes);
  return slab_over({p, [](std::byte* q) { ::operator delete (q, std::align_val_t{line}); }}, where);
}

LIMBER_COLD LIMBER_FN shared_array<std::byte> host::share_bytes(i64 bytes) const {
  std::vector<std::byte> memory(static_cast<std::size_t>(bytes));
  std::byte* const p = memory.data();
  return {p, p, bytes, detail::shared_owner(std::in_place, std::move(memory))};
}

// Calls body(leaf, its number) for every leaf; each thread takes a run of them.
LIMBER_FN void host::for_leaves(detail::host_operand const* operands, int count, i64 leaves,
                                function_ref<void(detail::leaf&, i64)> body) const {
  tensor_list const& list = *operands[0].list;
  auto run = [&](i64 begin, i64 end) {
    alignas(64) std::byte buffer[detail::most_operands * detail::block_elements * sizeof(double)];
    detail::leaf l{operands, count, buffer, &detail::next_block};
    i64 number = 0;
    for (std::size_t t = 0; t < list.size() && number < end; ++t) {
      i64 const own = detail::leaves_of(list[t]);
      if (own == 0) continue;
      l.tensor = static_cast<i64>(t);
      bool singles = false, doubles = false, halves = false;
      for (int k = 0; k < count; ++k) {
        dtype const type = (*operands[k].list)[t].type;
        (type == dtype::f64 ? doubles : type == dtype::f32 ? singles : halves) = true;
      }
      l.wide = doubles;
      l.step = halves || (doubles && singles) ? detail::block_elements : leaf_size;
      for (i64 k = detail::greatest<i64>(0, begin - number); k < own && number + k < end; ++k) {
        l.first = k * leaf_size;
        l.n = detail::least(leaf_size, list[t].length - l.first);
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

LIMBER_FN void host::each_leaf(detail::leaf_code const& code, void const* f,
                               detail::host_operand const* operands, int count) {
  for_leaves(operands, count, detail::check_shapes(operands, count),
             [&](detail::leaf& l, i64) { code.best(l.wide)(f, l, nullptr, nullptr); });
}

LIMBER_FN void host::measure_leaves(norm_memory& to, detail::leaf_code const& code, void const* f,
                                    bool skipped, detail::host_operand const* operands, int count) {
  i64 const leaves = detail::check_shapes(operands, count);
  tensor_list const& list = *operands[0].list;
  expects(to.tensors == static_cast<i64>(list.size()), "measure: memory for ", to.tensors, " norms, but ",
          list.size(), " tensors");
  for (std::size_t t = 0; t < list.size(); ++t) to.is_wide[t] = detail::is_wide(t, operands, count) ? 1 : 0;
  for (auto& memory : leaves_) {
    std::size_t const bytes = static_cast<std::size_t>(leaves) * sizeof(square_sum<double>);
    if (memory.size() < bytes) memory.resize(bytes);
    if (skipped && bytes > 0) std::memset(memory.data(), 0, bytes);
  }
  bool const both = code.sums > 1 && to.sums > 1;
  auto const sum_up = [&]<class T>(detail::leaf& l, i64 number, square_sum<T> const&) {
    i64 const at = l.first / leaf_size;
    square_sum<T>&first = sums<T>(0, number - at)[at], &second = sums<T>(1, number - at)[at];
    second = {};
    alignas(64) T y[leaf_size], z[leaf_size];
    if (code.as_it_lies && (*operands[0].list)[static_cast<std::size_t>(l.tensor)].type == dtype_of<T>) {
      (void)l.next();
      return detail::square_of(static_cast<T const*>(l.x[0]), l.n, first);
    }
    code.best(l.wide)(f, l, y, z);
    detail::square_of<T>(y, l.n, first);
    if (both) detail::square_of<T>(z, l.n, second);
  };
  for_leaves(operands, count, skipped ? 0 : leaves, [&](detail::leaf& l, i64 number) {
    l.wide ? sum_up(l, number, square_sum<double>{}) : sum_up(l, number, square_sum<float>{});
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
  auto const n = static_cast<std::size_t>(to.tensors), at = static_cast<std::size_t>(sum) * (n + 1);
  bool const any_wide = to.any_wide();
  tensor_norm<float>* const narrow = to.narrow.host + at;
  tensor_norm<double>* const wide = to.wide.host + at;
  if (totals_.size() < n * sizeof(square_sum<double>)) totals_.resize(n * sizeof(square_sum<double>));
  auto* const totals = reinterpret_cast<square_sum<double>*>(totals_.data());
  auto* const narrow_totals = reinterpret_cast<square_sum<float>*>(totals_.data());
  i64 leaf = 0;
  for (std::size_t t = 0; t < n; ++t) {
    i64 const own = detail::leaves_of(list[t]);
    if (to.is_wide[t] != 0) {
      totals[t] = tree_sum(sums<double>(sum, leaf), own);
      wide[t] = {totals[t], root_of(totals[t])};
    } else {
      auto const s = tree_sum(sums<float>(sum, leaf), own);
      narrow[t] = {s, root_of(s)};
      if (any_wide)
        totals[t] = {static_cast<double>(s.s), s.e};
      else
        narrow_totals[t] = s;
    }
    leaf += own;
  }
  if (any_wide) {
    auto const s = tree_sum(totals, to.tensors);
    wide[n] = {s, root_of(s)};
    narrow[n] = {{static_cast<float>(s.s), s.e}, static_cast<float>(wide[n].root)};
  } else {
    auto const s = tree_sum(narrow_totals, to.tensors);
    narrow[n] = {s, root_of(s)};
  }
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the ranks of a collective call must agree on, and the checks of its arguments.

#include <limber/comm/collective.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <functional>
#include <string>
#include <string_view>

namespace limber::detail {

enum class operation : std::uint8_t { all_reduce, reduce_scatter, all_gather, broadcast, barrier, split };

[[nodiscard]] constexpr std::string_view name_of(operation what) noexcept {
  switch (what) {
    case operation::all_reduce: return "all_reduce";
    case operation::reduce_scatter: return "reduce_scatter";
    case operation::all_gather: return "all_gather";
    case operation::broadcast: return "broadcast";
    case operation::barrier: return "barrier";
    case operation::split: return "split";
  }
  return "?";
}

/// One collective call without its memory: equal on all ranks, or the program is wrong.
struct signature {
  operation what = operation::barrier;
  reduction how = reduction::sum;
  dtype type = dtype::uint8;
  i64 count = 0;  ///< elements of the shorter view
  int root = 0;

  bool operator==(signature const&) const = default;
};

/// For messages: "all_reduce of 8 f32 (sum)".
[[nodiscard]] inline std::string text_of(signature const& s) {
  std::string out = text(name_of(s.what));
  if (s.what == operation::barrier || s.what == operation::split) return out;
  out += text(" of ", s.count, " ", limber::name_of(s.type));
  if (s.what == operation::broadcast) out += text(" from rank ", s.root);
  if (s.what == operation::all_reduce) out += s.how == reduction::sum ? " (sum)" : " (max)";
  return out;
}

/// The name that errors of a call show: the input's, or the output's where that has none.
[[nodiscard]] inline std::string_view bucket_of(const_tensor_view in, tensor_view out) noexcept {
  return in.name.empty() ? out.name : in.name;
}

inline void check_memory(std::string_view call, std::string_view which, const_tensor_view v,
                         std::string_view bucket) {
  expects(v.length >= 0, call, " of '", bucket, "': length of ", which, " must not be negative, got ",
          v.length);
  expects(v.length == 0 || v.data != nullptr, call, " of '", bucket, "': ", which, " is a null pointer for ",
          v.length, " elements");
}

inline void check_pair(std::string_view call, const_tensor_view in, tensor_view out) {
  check_memory(call, "in", in, bucket_of(in, out));
  check_memory(call, "out", out, bucket_of(in, out));
  expects(in.type == out.type, call, " of '", bucket_of(in, out), "': in is ", limber::name_of(in.type),
          " but out is ", limber::name_of(out.type));
  std::less<std::byte const*> const before;
  bool const apart = in.length == 0 || out.length == 0 || !before(in.data, out.data + out.bytes()) ||
                     !before(out.data, in.data + in.bytes());
  expects(apart, call, " of '", bucket_of(in, out), "': in and out overlap");
}

inline void check_reducible(std::string_view call, std::string_view name, dtype type, reduction how) {
  bool const narrow = type == dtype::bf16 || type == dtype::f16;
  expects(type != dtype::uint8 && !(narrow && how == reduction::max), call, " of '", name, "': no ",
          how == reduction::sum ? "sum" : "max", " of ", limber::name_of(type));
}

inline void check_rank(std::string_view call, std::string_view which, int rank, int size) {
  expects(rank >= 0 && rank < size, call, ": ", which, " must lie in [0, ", size, "), got ", rank);
}

[[nodiscard]] inline signature all_reduce_of(const_tensor_view in, tensor_view out, reduction how) {
  check_pair("all_reduce", in, out);
  check_reducible("all_reduce", bucket_of(in, out), in.type, how);
  expects(in.length == out.length, "all_reduce of '", bucket_of(in, out), "': in has ", in.length,
          " elements but out ", out.length);
  return {operation::all_reduce, how, in.type, in.length, 0};
}

[[nodiscard]] inline signature reduce_scatter_of(const_tensor_view in, tensor_view out, int size) {
  check_pair("reduce_scatter", in, out);
  check_reducible("reduce_scatter", bucket_of(in, out), in.type, reduction::sum);
  expects(in.length == size * out.length, "reduce_scatter of '", bucket_of(in, out), "': in has ", in.length,
          " elements, not ", size, " times the ", out.length, " of out");
  return {operation::reduce_scatter, reduction::sum, in.type, out.length, 0};
}

[[nodiscard]] inline signature all_gather_of(const_tensor_view in, tensor_view out, int size) {
  check_pair("all_gather", in, out);
  expects(out.length == size * in.length, "all_gather of '", bucket_of(in, out), "': out has ", out.length,
          " elements, not ", size, " times the ", in.length, " of in");
  return {operation::all_gather, reduction::sum, in.type, in.length, 0};
}

[[nodiscard]] inline signature broadcast_of(tensor_view data, int root, int size) {
  check_memory("broadcast", "data", data, data.name);
  check_rank("broadcast", "root", root, size);
  return {operation::broadcast, reduction::sum, data.type, data.length, root};
}

}  // namespace limber::detail

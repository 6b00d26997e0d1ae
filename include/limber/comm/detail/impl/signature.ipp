// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/signature.hpp>

#include <compare>
#include <cstddef>

namespace limber::detail {

LIMBER_COLD LIMBER_FN std::string text_of(signature const& s) {
  std::string out = text(name_of(s.what));
  if (s.what == operation::barrier || s.what == operation::split) return out;
  out += text(" of ", s.count, " ", limber::name_of(s.type));
  if (s.what == operation::broadcast) out += text(" from rank ", s.root);
  if (s.what == operation::all_reduce) out += s.how == reduction::sum ? " (sum)" : " (max)";
  return out;
}

LIMBER_FN void check_memory(std::string_view call, std::string_view which, const_tensor_view v,
                            std::string_view bucket) {
  expects(v.length >= 0, call, " of '", bucket, "': length of ", which, " must not be negative, got ",
          v.length);
  expects(v.length == 0 || v.data != nullptr, call, " of '", bucket, "': ", which, " is a null pointer for ",
          v.length, " elements");
}

LIMBER_FN void check_pair(std::string_view call, const_tensor_view in, tensor_view out) {
  std::string_view const bucket = bucket_of(in, out);
  check_memory(call, "in", in, bucket);
  check_memory(call, "out", out, bucket);
  if (in.type != out.type)
    expects(false, call, " of '", bucket, "': in is ", limber::name_of(in.type), " but out is ",
            limber::name_of(out.type));
  auto const before = [](std::byte const* a, std::byte const* b) {
    return std::compare_three_way{}(a, b) < 0;  // a total order, of unrelated pointers too
  };
  bool const apart = in.length == 0 || out.length == 0 || !before(in.data, out.data + out.bytes()) ||
                     !before(out.data, in.data + in.bytes());
  expects(apart, call, " of '", bucket, "': in and out overlap");
}

LIMBER_FN void check_reducible(std::string_view call, std::string_view name, dtype type, reduction how) {
  bool const narrow = type == dtype::bf16 || type == dtype::f16;
  if (type == dtype::uint8 || (narrow && how == reduction::max))
    expects(false, call, " of '", name, "': no ", how == reduction::sum ? "sum" : "max", " of ",
            limber::name_of(type));
}

LIMBER_FN void check_rank(std::string_view call, std::string_view which, int rank, int size) {
  expects(rank >= 0 && rank < size, call, ": ", which, " must lie in [0, ", size, "), got ", rank);
}

LIMBER_FN signature all_reduce_of(const_tensor_view in, tensor_view out, reduction how) {
  check_pair("all_reduce", in, out);
  check_reducible("all_reduce", bucket_of(in, out), in.type, how);
  expects(in.length == out.length, "all_reduce of '", bucket_of(in, out), "': in has ", in.length,
          " elements but out ", out.length);
  return {operation::all_reduce, how, in.type, in.length, 0};
}

LIMBER_FN signature reduce_scatter_of(const_tensor_view in, tensor_view out, int size) {
  check_pair("reduce_scatter", in, out);
  check_reducible("reduce_scatter", bucket_of(in, out), in.type, reduction::sum);
  expects(in.length == size * out.length, "reduce_scatter of '", bucket_of(in, out), "': in has ", in.length,
          " elements, not ", size, " times the ", out.length, " of out");
  return {operation::reduce_scatter, reduction::sum, in.type, out.length, 0};
}

LIMBER_FN signature all_gather_of(const_tensor_view in, tensor_view out, int size) {
  check_pair("all_gather", in, out);
  expects(out.length == size * in.length, "all_gather of '", bucket_of(in, out), "': out has ", out.length,
          " elements, not ", size, " times the ", in.length, " of in");
  return {operation::all_gather, reduction::sum, in.type, in.length, 0};
}

LIMBER_FN signature broadcast_of(tensor_view data, int root, int size) {
  check_memory("broadcast", "data", data, data.name);
  check_rank("broadcast", "root", root, size);
  return {operation::broadcast, reduction::sum, data.type, data.length, root};
}

}  // namespace limber::detail

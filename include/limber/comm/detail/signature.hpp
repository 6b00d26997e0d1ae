// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the ranks of a collective call must agree on, and the checks of its arguments.

#include <limber/comm/collective.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/tensor.hpp>

#include <cstdint>
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
[[nodiscard]] std::string text_of(signature const& s);

/// The name that errors of a call show: the input's, or the output's where that has none.
[[nodiscard]] inline std::string_view bucket_of(const_tensor_view in, tensor_view out) noexcept {
  return in.name.empty() ? out.name : in.name;
}

// Each throws std::invalid_argument naming the call and what is wrong.
void check_memory(std::string_view call, std::string_view which, const_tensor_view v,
                  std::string_view bucket);
void check_pair(std::string_view call, const_tensor_view in, tensor_view out);
void check_reducible(std::string_view call, std::string_view name, dtype type, reduction how);
void check_rank(std::string_view call, std::string_view which, int rank, int size);

[[nodiscard]] signature all_reduce_of(const_tensor_view in, tensor_view out, reduction how);
[[nodiscard]] signature reduce_scatter_of(const_tensor_view in, tensor_view out, int size);
[[nodiscard]] signature all_gather_of(const_tensor_view in, tensor_view out, int size);
[[nodiscard]] signature broadcast_of(tensor_view data, int root, int size);

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/comm/detail/impl/signature.ipp>
#endif

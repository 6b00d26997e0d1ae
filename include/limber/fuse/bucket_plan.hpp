// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Which tensors cross the wire together, in what order, and where they lie in the flat buffer.

#include <limber/core/piece.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/layout.hpp>

#include <optional>
#include <string>
#include <vector>

namespace limber {

/// How gradients are cut into buckets.
struct bucket_options {
  i64 first_bytes = i64{1} << 20;  ///< the first bucket is small, so that its reduction starts early
  i64 bytes = i64{25} << 20;       ///< all later ones
  std::optional<dtype> wire{};     ///< bf16 or f16: what f32 gradients are cast to; f64 is never cast
  bool error_feedback = false;     ///< what the cast cuts off is kept and sent with the next gradient
};

/// The same cuts for what is never cast: models, averages.
[[nodiscard]] inline bucket_options without_wire(bucket_options o) noexcept {
  o.wire.reset();
  o.error_feedback = false;
  return o;
}

/// One collective's worth of gradients: a run of one dtype in the flat buffer.
struct bucket {
  i64 offset = 0;  ///< bytes from the start of the buffer, a multiple of 256
  i64 length = 0;  ///< elements, the padding between slots included (it stays zero)
  dtype type = dtype::f32;
  std::string name;
  i64 first = 0;                ///< the tensor whose gradient completes it last, as an index into the list
  std::vector<i64> tensors{};   ///< those in it, as indices into the list; one alone may have further buckets
  std::vector<piece> pieces{};  ///< where they lie in it; a part of a cut tensor starts at a whole leaf
};

/// The plan: a layout of the list and the buckets over it.
///
/// Order    tensors in reverse order of use, because backward finishes the last one first; a bucket
///          holds one dtype; tensors of another dtype go to that dtype's open bucket.
/// Large    a tensor beyond the cap gets buckets of its own, cut at whole leaves (4,096 elements).
/// Empty    tensors of length 0 have a place and no bucket.
/// Hash     of names, lengths, dtypes, offsets, cuts and error feedback: equal on all ranks or nothing is
///          exchanged.
struct bucket_plan {
  layout where;
  std::vector<bucket> buckets;
  std::uint64_t hash = 0;
  std::optional<dtype> feedback{};  ///< the wire whose error is kept and sent later
};

namespace detail {

inline constexpr i64 bucket_alignment = 256;

}  // namespace detail

/// Plans buckets for `tensors`.
///
/// @param use_order  indices into `tensors` in the order in which forward uses them; empty: list order
/// @throws std::invalid_argument if a cap is not positive or the wire type is not 16-bit
[[nodiscard]] bucket_plan plan_buckets(tensor_list const& tensors, bucket_options const& options = {},
                                       std::vector<i64> use_order = {});

/// The bucket's run in a slab that was made with the plan's layout.
[[nodiscard]] inline tensor_view bucket_view(slab const& s, bucket const& b) noexcept {
  return {s.data() + b.offset, b.length, b.type, b.name};
}

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/fuse/impl/bucket_plan.ipp>
#endif

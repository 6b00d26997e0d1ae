// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Which tensors cross the wire together, in what order, and where they lie in the flat buffer.

#include <limber/core/fingerprint.hpp>
#include <limber/core/norm.hpp>
#include <limber/core/piece.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/layout.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
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
[[nodiscard]] inline bucket_plan plan_buckets(tensor_list const& tensors, bucket_options const& options = {},
                                              std::vector<i64> use_order = {}) {
  expects(options.first_bytes > 0, "buckets: first_bytes must be positive, got ", options.first_bytes);
  expects(options.bytes > 0, "buckets: bytes must be positive, got ", options.bytes);
  expects(!options.wire || *options.wire == dtype::bf16 || *options.wire == dtype::f16,
          "buckets: wire must be bf16 or f16, got ", name_of(options.wire.value_or(dtype::f32)));
  if (use_order.empty())
    for (i64 i = 0; i < static_cast<i64>(tensors.size()); ++i) use_order.push_back(i);
  expects(use_order.size() == tensors.size(), "buckets: use_order names ", use_order.size(), " of ",
          tensors.size(), " tensors");

  bucket_plan plan;
  auto& places = plan.where.places;
  places.resize(tensors.size());
  struct open_bucket {
    std::vector<i64> members;
    i64 bytes = 0;
    dtype type = dtype::f32;
  };
  std::vector<open_bucket> open;

  auto cap = [&] { return plan.buckets.empty() ? options.first_bytes : options.bytes; };
  auto add = [&](dtype type, i64 offset, i64 length, std::vector<i64> members, std::vector<piece> pieces) {
    auto const n = plan.buckets.size();
    i64 const last = members.front(), first = members.back();
    auto const& a = tensors[static_cast<std::size_t>(last)].name;
    auto const& b = tensors[static_cast<std::size_t>(first)].name;
    plan.buckets.push_back(
        {offset, length, type,
         last == first ? text("bucket ", n, ": ", a) : text("bucket ", n, ": ", a, " … ", b), first,
         std::move(members), std::move(pieces)});
  };
  auto close = [&](open_bucket& b) {
    if (b.members.empty()) return;
    i64 const begin = round_up(plan.where.bytes, detail::bucket_alignment);
    i64 at = begin, end = begin;
    std::vector<piece> pieces;
    for (i64 i : b.members) {
      auto const& t = tensors[static_cast<std::size_t>(i)];
      places[static_cast<std::size_t>(i)] = {at, t.length, b.type, t.name};
      pieces.push_back({(at - begin) / size_of(b.type), t.length});
      end = at + t.length * size_of(b.type);
      at = round_up(end, slot_alignment);
    }
    add(b.type, begin, (end - begin) / size_of(b.type), std::exchange(b.members, {}), std::move(pieces));
    plan.where.bytes = at;
    b.bytes = 0;
  };

  for (auto k = use_order.rbegin(); k != use_order.rend(); ++k) {
    auto const& t = tensors[static_cast<std::size_t>(*k)];
    dtype const own = compute_type(t.type), type = own == dtype::f32 ? options.wire.value_or(own) : own;
    if (t.length == 0) {
      places[static_cast<std::size_t>(*k)] = {0, 0, type, t.name};
      continue;
    }
    auto b = std::ranges::find(open, type, &open_bucket::type);
    if (b == open.end()) b = open.insert(open.end(), open_bucket{{}, 0, type});
    i64 const bytes = round_up(t.length * size_of(type), slot_alignment);
    if (!b->members.empty() && b->bytes + bytes > cap()) close(*b);
    if (bytes <= cap()) {
      b->members.push_back(*k);
      b->bytes += bytes;
      continue;
    }
    // Too large for any bucket: pieces of whole leaves, contiguous.
    i64 const begin = round_up(plan.where.bytes, detail::bucket_alignment);
    places[static_cast<std::size_t>(*k)] = {begin, t.length, type, t.name};
    for (i64 done = 0; done < t.length;) {
      i64 const leaves = std::max<i64>(1, cap() / (leaf_size * size_of(type)));
      i64 const n = std::min(t.length - done, leaves * leaf_size);
      add(type, begin + done * size_of(type), n, {*k}, {{0, n}});
      done += n;
    }
    plan.where.bytes = begin + bytes;
  }
  for (auto& b : open) close(b);

  fingerprint h;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    h.mix(tensors[i].name);
    h.mix(tensors[i].length);
    h.mix(static_cast<i64>(tensors[i].type));
    h.mix(static_cast<i64>(places[i].type));
    h.mix(places[i].offset);
  }
  for (auto const& b : plan.buckets) {
    h.mix(b.offset);
    h.mix(b.length);
  }
  if (options.error_feedback) plan.feedback = options.wire;
  if (plan.feedback) h.mix("error feedback");
  plan.hash = h.value();
  return plan;
}

/// The bucket's run in a slab that was made with the plan's layout.
[[nodiscard]] inline tensor_view bucket_view(slab const& s, bucket const& b) noexcept {
  return {s.data() + b.offset, b.length, b.type, b.name};
}

}  // namespace limber

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/fingerprint.hpp>
#include <limber/core/norm.hpp>
#include <limber/core/order.hpp>
#include <limber/fuse/bucket_plan.hpp>

namespace limber {

LIMBER_COLD LIMBER_FN bucket_plan plan_buckets(tensor_list const& tensors, bucket_options const& options,
                                               std::vector<i64> use_order) {
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
  open_bucket open[4];  // one a type, in the order in which they were opened
  int opened = 0;

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

  for (std::size_t left = use_order.size(); left > 0; --left) {
    i64 const i = use_order[left - 1];
    auto const& t = tensors[static_cast<std::size_t>(i)];
    dtype const own = compute_type(t.type), type = own == dtype::f32 ? options.wire.value_or(own) : own;
    if (t.length == 0) {
      places[static_cast<std::size_t>(i)] = {0, 0, type, t.name};
      continue;
    }
    open_bucket* b = nullptr;
    for (auto* o = open; o != open + opened; ++o)
      if (o->type == type) b = o;
    if (b == nullptr) {
      b = &open[opened++];
      b->type = type;
    }
    i64 const bytes = round_up(t.length * size_of(type), slot_alignment);
    if (!b->members.empty() && b->bytes + bytes > cap()) close(*b);
    if (bytes <= cap()) {
      b->members.push_back(i);
      b->bytes += bytes;
      continue;
    }
    // Too large for any bucket: pieces of whole leaves, contiguous.
    i64 const begin = round_up(plan.where.bytes, detail::bucket_alignment);
    places[static_cast<std::size_t>(i)] = {begin, t.length, type, t.name};
    for (i64 done = 0; done < t.length;) {
      i64 const leaves = detail::greatest<i64>(1, cap() / (leaf_size * size_of(type)));
      i64 const n = detail::least(t.length - done, leaves * leaf_size);
      add(type, begin + done * size_of(type), n, {i}, {{0, n}});
      done += n;
    }
    plan.where.bytes = begin + bytes;
  }
  for (auto& b : open) close(b);  // what was not opened is empty

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

}  // namespace limber

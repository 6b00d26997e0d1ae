// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Starts operations of NCCL with the necessary copies, and waits for them.

#include <limber/comm/detail/nccl_process_group.hpp>
#include <limber/comm/detail/nccl_staging.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <cstring>
#include <string_view>

namespace limber::nccl::detail {

/// Whether NCCL can use the memory of `v` directly.
template <engine E>
[[nodiscard]] bool lies_on_device(process_group<E>& g, const_tensor_view v, std::string_view bucket,
                                  bool must_be) {
  if (v.length == 0) return true;
  memory_place where;
  process_group<E>::must("place_of", g.engine.place_of(v.data, where));
  expects(where.on_device || !must_be, "'", bucket, "' lies in host memory: stream-ordered operations and ",
          "registrations need device memory");
  expects(!where.on_device || where.device < 0 || where.device == g.device, "'", bucket, "' lies on device ",
          where.device, ", the communicator is on device ", g.device);
  return where.on_device;
}

/// Enqueues one operation on the stream, with the necessary copies before and after. Returns its number.
/// @param keys  the values are floats that are reduced as ordered integers
template <engine E, class Issue>
[[nodiscard]] i64 begin(process_group<E>* g, call const& c, const_tensor_view in, tensor_view out, bool keys,
                        Issue issue) {
  bool const in_host = !lies_on_device(*g, in, c.bucket, false),
             out_host = !lies_on_device(*g, out, c.bucket, false);
  bool const in_place = in.length > 0 && in.data == out.data;
  g->check(c);
  ++g->calls;
  on_device<E> const here(g->engine, g->device);
  i64 const number = g->take_op(c);
  auto& f = g->op(number);
  void const* from = in.data;
  void* to = out.data;
  auto const copy = [&](void* target, void const* source, i64 bytes) {
    if (bytes > 0) g->need(c, g->engine.copy(target, source, static_cast<std::size_t>(bytes), g->own));
  };
  auto const take = [&](i64 bytes) {
    return g->slots.take(g->engine, g->own, bytes, [&](answer const& a) { g->need(c, a); });
  };
  slot* s = nullptr;
  if (keys && in.length > 0) {
    i64 const wide = in.length * size_of(dtype::int64);
    s = f.staged = take(slot::room(in.bytes(), wide));
    s->arrange(in.bytes());
    s->type = in.type;
    s->length = in.length;
    if (in_host)
      std::memcpy(s->pinned, in.data, static_cast<std::size_t>(in.bytes()));
    else
      copy(s->pinned, in.data, in.bytes());
    g->need(c, g->engine.call(g->own, numbers_to_keys, s));
    copy(s->device + s->out_at, s->pinned + s->out_at, wide);
    from = to = s->device + s->out_at;
  } else if (in_host || out_host) {
    i64 const first = in_host ? in.bytes() : 0, second = out_host && !in_place ? out.bytes() : 0;
    s = f.staged = take(slot::room(first, second));
    s->arrange(first);
    if (in_host) {
      std::memcpy(s->pinned, in.data, static_cast<std::size_t>(first));
      copy(s->device, s->pinned, first);
      from = s->device;
    }
    if (out_host) to = s->device + (in_place ? 0 : s->out_at);
  }
  g->need(c, issue(from, to));
  g->await_enqueued(c);
  if (keys && s) {
    i64 const wide = in.length * size_of(dtype::int64);
    copy(s->pinned + s->out_at, s->device + s->out_at, wide);
    g->need(c, g->engine.call(g->own, keys_to_numbers, s));
    if (!out_host) copy(out.data, s->pinned, out.bytes());
    f.from = 0;
  } else if (out_host) {
    f.from = in_place ? 0 : s->out_at;
    copy(s->pinned + f.from, to, out.bytes());
  }
  if (out_host) f.out = out;
  g->need(c, g->engine.record(f.event, g->own));
  f.open = true;
  return number;
}

template <engine E>
i64 process_group<E>::start(int, signature const& s, const_tensor_view in, tensor_view out) {
  bool const keys = s.what == operation::all_reduce && s.how == reduction::max && is_floating(s.type);
  auto const n = static_cast<std::size_t>(s.count);
  if (s.what == operation::barrier) {  // of the hosts: a sum of one number
    in = {reinterpret_cast<std::byte const*>(&barrier_in_), 1, dtype::int64};
    out = {reinterpret_cast<std::byte*>(&barrier_out_), 1, dtype::int64};
  }
  return begin(this, call::of(s, limber::detail::bucket_of(in, out)), in, out, keys,
               [&](void const* from, void* to) -> answer {
                 switch (s.what) {
                   case operation::all_reduce:
                     return engine.all_reduce(from, to, n, keys ? dtype::int64 : s.type, s.how, native, own);
                   case operation::reduce_scatter:
                     return engine.reduce_scatter(from, to, n, s.type, native, own);
                   case operation::split:
                   case operation::all_gather: return engine.all_gather(from, to, n, s.type, native, own);
                   case operation::broadcast:
                     return engine.broadcast(from, to, n, s.type, s.root, native, own);
                   case operation::barrier:
                     return engine.all_reduce(from, to, 1, dtype::int64, reduction::sum, native, own);
                 }
                 return {};
               });
}

template <engine E>
void process_group<E>::send(int, int peer, const_tensor_view in) {
  expects(peer != rank, "send: peer ", peer, " is this rank itself");
  call const c{"send", in.name, {operation::broadcast, reduction::sum, in.type, in.length, 0}, peer};
  complete(begin(this, c, in, {}, false, [&](void const* from, void*) {
    return engine.send(from, static_cast<std::size_t>(in.length), in.type, peer, native, own);
  }));
}
template <engine E>
void process_group<E>::recv(int, int peer, tensor_view out) {
  expects(peer != rank, "recv: peer ", peer, " is this rank itself");
  call const c{"recv", out.name, {operation::broadcast, reduction::sum, out.type, out.length, 0}, peer};
  complete(begin(this, c, {}, out, false, [&](void const*, void* to) {
    return engine.recv(to, static_cast<std::size_t>(out.length), out.type, peer, native, own);
  }));
}

}  // namespace limber::nccl::detail

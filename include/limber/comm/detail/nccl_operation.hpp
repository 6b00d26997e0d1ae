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
#include <exception>
#include <memory>
#include <string_view>
#include <utility>

namespace limber::nccl {

/// An operation in flight. `wait` and `done` check for errors of NCCL, revocations and the deadline, which
/// counts from the first of these calls.
template <detail::engine E>
class basic_request {
 public:
  basic_request(std::shared_ptr<detail::process_group<E>> g, detail::in_flight_op<E>& f,
                detail::call const& c)
      : where_(std::move(g)), op_(&f), call_(c) {}
  basic_request(basic_request&& other) noexcept
      : where_(std::move(other.where_)), op_(other.op_), call_(other.call_) {}
  basic_request& operator=(basic_request&& other) noexcept {
    if (this != &other) {
      drop();
      where_ = std::move(other.where_);
      op_ = other.op_;
      call_ = other.call_;
    }
    return *this;
  }
  ~basic_request() { drop(); }

  /// Blocks the host until the result is complete. @throws limber::error if the communicator failed before
  void wait() {
    if (!where_) return;
    where_->finish(*op_, call_);
    where_ = nullptr;
  }
  /// Does not synchronize.
  [[nodiscard]] bool done() { return !where_ || where_->done(*op_); }

 private:
  void drop() noexcept {
    if (where_) where_->drop(*op_, call_, std::uncaught_exceptions() > exceptions_);
    where_ = nullptr;
  }

  std::shared_ptr<detail::process_group<E>> where_;
  detail::in_flight_op<E>* op_;
  detail::call call_;
  int exceptions_ = std::uncaught_exceptions();
};

namespace detail {

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

/// Enqueues one operation on the stream, with the necessary copies before and after.
/// @param keys  the values are floats that are reduced as ordered integers
template <engine E, class Issue>
[[nodiscard]] basic_request<E> begin(std::shared_ptr<process_group<E>> const& g, call const& c,
                                     const_tensor_view in, tensor_view out, bool keys, Issue issue) {
  bool const in_host = !lies_on_device(*g, in, c.bucket, false),
             out_host = !lies_on_device(*g, out, c.bucket, false);
  bool const in_place = in.length > 0 && in.data == out.data;
  g->check(c);
  ++g->calls;
  on_device<E> const here(g->engine, g->device);
  auto& f = g->take_op(c);
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
  return basic_request<E>(g, f, c);
}

}  // namespace detail
}  // namespace limber::nccl

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Starts operations of NCCL with the necessary copies, and creates communicators, from an id or from another
/// communicator.

#include <limber/comm/detail/nccl_engine.hpp>
#include <limber/comm/detail/nccl_process_group.hpp>
#include <limber/comm/launch.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

inline void check_options(options const& how, int rank, int size) {
  expects(size >= 1, "nccl: a communicator needs at least 1 rank, got ", size);
  limber::detail::check_rank("nccl", "rank", rank, size);
  expects(how.rendezvous_deadline > 0, "nccl: rendezvous_deadline must be > 0 s, got ",
          how.rendezvous_deadline);
  limber::detail::check_waiting("nccl", how.deadline, how.clock, &how.pause);
}

template <engine E>
[[nodiscard]] int chosen_device(E& e, options const& how, launch_facts const* facts) {
  int devices = 0, current = 0;
  process_group<E>::must("start", e.device_count(devices));
  expects(how.device < devices, "nccl: device ", how.device, " was asked for, but there are ", devices);
  if (how.device >= 0) return how.device;
  if (facts && facts->size > 1) return device_for(*facts, devices);
  process_group<E>::must("start", e.device(current));
  return current;
}

template <engine E>
[[nodiscard]] unique_id new_id(E& e) {
  unique_id id{};
  process_group<E>::must("bootstrap", e.make_id(id));
  return id;
}

[[nodiscard]] inline std::string with_hint(std::string reason) {
  if (reason.find("Duplicate GPU") != std::string::npos)
    reason +=
        "; NCCL wants a GPU for every rank: start as many ranks on a machine as it has GPUs, and give each "
        "its "
        "own (options::device, or the local rank)";
  return reason;
}

/// Waits until `child`, made from communicator `parent`, is usable.
/// @param missing  makes the error message at the deadline
template <engine E>
void await_init(process_group<E>& g, std::string_view what, typename E::comm_type parent,
                typename E::comm_type const& child, double deadline,
                std::function<std::string()> const& missing) {
  auto const fail = [&](int code, std::string reason) {
    throw error({"nccl", std::string(what), code, -1, {}, std::move(reason)});
  };
  bool const in_time = g.until(g.now(), deadline, [&] {
    answer a = g.engine.async_state(parent);
    if (a.is == state::done && child && child != parent) a = g.engine.async_state(child);
    if (a.failed()) fail(a.code, with_hint(a.reason));
    if (a.is == state::done && !child) fail(0, "NCCL made no communicator");
    return a.is == state::done;
  });
  if (!in_time) fail(0, missing());
}

template <engine E>
[[nodiscard]] process_group<E>& group_of(place const& p) noexcept {
  return static_cast<process_group<E>&>(*p.where.get());
}

template <engine E>
[[nodiscard]] place make_group(E e, options const& how, int device, std::string name, int rank,
                               std::vector<int> world) {
  auto* const g = new process_group<E>(std::move(e), how, device, std::move(name), rank, std::move(world));
  place made{shared_group(g), rank};
  g->open();
  return made;
}

/// The rank's part in a new communicator of all ranks that have `id`.
template <engine E>
[[nodiscard]] place init_group(E e, options const& how, int device, int rank, int size, unique_id const& id) {
  std::vector<int> world(static_cast<std::size_t>(size));
  std::iota(world.begin(), world.end(), 0);
  place made = make_group(std::move(e), how, device, name_of(id), rank, std::move(world));
  auto& g = group_of<E>(made);
  on_device<E> const here(g.engine, device);
  answer const a = g.engine.init(g.native, size, id, rank);
  if (a.failed()) throw error({"nccl", "init", a.code, rank, {}, with_hint(a.reason)});
  await_init(g, "init", g.native, g.native, how.rendezvous_deadline, [&] {
    return text(
        "rank ", rank, " of ", size, ": not all ranks joined within ", how.rendezvous_deadline,
        " s: one did not come, or they do not reach each other (NCCL_SOCKET_IFNAME names the network, "
        "NCCL_DEBUG=INFO prints details)");
  });
  return made;
}

/// This rank's part in a new communicator of `members`, made from `parent`.
///
/// @param issue  calls NCCL to make the new communicator
template <engine E, class Issue>
[[nodiscard]] place make_child(process_group<E>& parent, std::string_view what,
                               std::vector<int> const& members, std::string const& name, Issue issue) {
  std::vector<int> world;
  for (int const r : members) world.push_back(parent.world[static_cast<std::size_t>(r)]);
  place made = make_group(parent.engine, parent.how, parent.device, name,
                          limber::detail::rank_among(members, parent.rank), std::move(world));
  std::string const key = text("came.", name);
  kv_store const& notices = parent.how.notices;
  if (notices) (void)notices.put(text(key, ".", parent.rank), text(parent.rank));
  auto& location = parent.pending_comms.emplace_back();
  auto const missing_text = [&] {
    std::string reason = text(parent.rank_name(parent.rank), ": the new group of ", members.size(),
                              " ranks was not complete within ", parent.how.deadline, " s");
    std::vector<int> missing = members;
    if (notices)
      await_keys(
          notices, key, missing, parent.how.pause, [] { return true; }, [](int, auto const&) {});
    if (notices && !missing.empty()) reason += text("; ", ranks_text(missing), " did not come");
    return reason;
  };
  on_device<E> const here(parent.engine, parent.device);
  try {
    answer const a = issue(location);
    if (a.failed()) throw error({"nccl", std::string(what), a.code, -1, {}, with_hint(a.reason)});
    await_init(parent, what, parent.native, location, parent.how.deadline, missing_text);
  } catch (error const& e) {
    // NCCL may still be working on it, so the parent cannot be used. The key stays, for ranks with a later
    // deadline.
    parent.end({e.where().rank, e.where().reason, e.where().code});
    if (location) (void)parent.engine.abort(location);
    throw;
  }
  if (notices) notices.remove(text(key, ".", parent.rank));
  group_of<E>(made).native = location;
  return made;
}

template <engine E>
place process_group<E>::split(int, int color) {
  // NCCL's colors start at 0, and it does not report the members of the new group.
  i64 const mine = color;
  std::vector<i64> colors(world.size());
  complete(start(rank, {operation::split, reduction::sum, dtype::int64, 1, 0},
                 {reinterpret_cast<std::byte const*>(&mine), 1, dtype::int64}, view(colors)));
  int const kind = limber::detail::index_of_color(colors, mine);
  return divide(kind, limber::detail::ranks_of_color(colors, mine), text(name, ".", ++children, "-", kind));
}

template <engine E>
place process_group<E>::shrink(int, std::span<int const> lost) {
  std::vector<int> const survivors = limber::detail::survivors_of(lost, size());
  // Operations in flight are stopped first: NCCL shrinks only an idle communicator.
  end({lost.empty() ? -1 : lost[0], limber::detail::shrunk_text(ranks_text({lost.begin(), lost.end()}))});
  if (end_state_ == end_state::aborted || !native)
    throw error({"nccl",
                 "shrink",
                 0,
                 rank,
                 {},
                 "NCCL could not be revoked and was aborted; make a new communicator from a new id"});
  std::string called = text(name, ".");
  for (int const r : lost) called += text("-", r);
  if (lost.empty()) return divide(0, survivors, called + "-all");
  bool const unclean = end_state_ == end_state::unclean;
  return make_child(*this, "shrink", survivors, called,
                    [&](comm_type& location) { return engine.shrink(native, lost, unclean, location); });
}

template <engine E>
place process_group<E>::divide(int kind, std::vector<int> const& members, std::string const& called) {
  return make_child(*this, "split", members, called,
                    [&](comm_type& location) { return engine.split(native, kind, rank, location); });
}

}  // namespace limber::nccl::detail

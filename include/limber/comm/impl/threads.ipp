// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/threads_group.hpp>
#include <limber/comm/detail/threads_messages.hpp>
#include <limber/comm/detail/threads_shrink.hpp>
#include <limber/comm/detail/threads_world_state.hpp>
#include <limber/comm/threads.hpp>
#include <limber/core/error.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

namespace limber::threads {

namespace detail {

LIMBER_FN shared_group::shared_group(shared_group const& other) noexcept : group_(other.group_) {
  if (group_ != nullptr) group_->owners_.fetch_add(1, std::memory_order_relaxed);
}
LIMBER_FN shared_group::~shared_group() {
  if (group_ != nullptr && group_->owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete group_;
}

}  // namespace detail

LIMBER_FN request::request(detail::shared_group where, int rank, i64 sequence, limber::detail::operation what,
                           std::string_view bucket) noexcept
    : where_(std::move(where)),
      rank_(rank),
      sequence_(sequence),
      what_(what),
      bucket_(bucket),
      exceptions_(std::uncaught_exceptions()) {}
LIMBER_FN request::request(request&& other) noexcept : exceptions_(std::uncaught_exceptions()) {
  take(other);
}
LIMBER_FN request& request::operator=(request&& other) noexcept {
  if (this != &other) {
    drop();
    take(other);
  }
  return *this;
}

LIMBER_FN void request::wait() {
  if (!where_) return;
  where_->finish(rank_, sequence_, what_, bucket_);
  where_ = {};
}
LIMBER_FN bool request::done() { return !where_ || where_->done(sequence_, timer_); }

LIMBER_FN void request::take(request& other) noexcept {
  where_ = std::move(other.where_);
  rank_ = other.rank_;
  sequence_ = other.sequence_;
  what_ = other.what_;
  bucket_ = other.bucket_;
  timer_ = other.timer_;
}
LIMBER_FN void request::drop() noexcept {
  if (where_) where_->drop(rank_, what_, bucket_, std::uncaught_exceptions() > exceptions_);
  where_ = {};
}

LIMBER_FN communicator::communicator(detail::shared_group where, int rank) noexcept
    : where_(std::move(where)), rank_(rank), exceptions_(std::uncaught_exceptions()) {}
LIMBER_FN communicator::communicator(communicator&& other) noexcept
    : communicator(std::move(other.where_), other.rank_) {}
LIMBER_FN communicator& communicator::operator=(communicator&& other) noexcept {
  if (this != &other) {
    leave();
    where_ = std::move(other.where_);
    rank_ = other.rank_;
  }
  return *this;
}

LIMBER_FN detail::group& communicator::group() const {
  expects(static_cast<bool>(where_), "threads: this communicator was moved from");
  return *where_;
}
LIMBER_FN request communicator::start(limber::detail::signature const& s, const_tensor_view in,
                                      tensor_view out, int color) {
  std::string_view const bucket = limber::detail::bucket_of(in, out);
  i64 const sequence = group().start(rank_, s, {in.data, out.data}, bucket, color);
  return {where_, rank_, sequence, s.what, bucket};
}
LIMBER_FN void communicator::leave() noexcept {
  if (where_) where_->leave(rank_, std::uncaught_exceptions() > exceptions_);
  where_ = {};
}

LIMBER_FN int communicator::size() const { return group().size(); }

LIMBER_FN request communicator::all_reduce(const_tensor_view in, tensor_view out, reduction how) {
  return start(limber::detail::all_reduce_of(in, out, how), in, out);
}
LIMBER_FN request communicator::reduce_scatter(const_tensor_view in, tensor_view out) {
  return start(limber::detail::reduce_scatter_of(in, out, size()), in, out);
}
LIMBER_FN request communicator::all_gather(const_tensor_view in, tensor_view out) {
  return start(limber::detail::all_gather_of(in, out, size()), in, out);
}
LIMBER_FN request communicator::broadcast(tensor_view data, int root) {
  return start(limber::detail::broadcast_of(data, root, size()), data, data);
}
LIMBER_FN void communicator::barrier() { start({limber::detail::operation::barrier}, {}, {}).wait(); }

LIMBER_FN void communicator::send(const_tensor_view in, int peer) {
  limber::detail::check_memory("send", "in", in, in.name);
  limber::detail::check_rank("send", "peer", peer, size());
  group().send(rank_, peer, in);
}
LIMBER_FN void communicator::recv(tensor_view out, int peer) {
  limber::detail::check_memory("recv", "out", out, out.name);
  limber::detail::check_rank("recv", "peer", peer, size());
  group().recv(rank_, peer, out);
}

LIMBER_FN communicator communicator::split(int color) {
  start({limber::detail::operation::split}, {}, {}, color).wait();
  detail::place p = group().take_place(rank_);
  return {std::move(p.where), p.rank};
}

LIMBER_FN void communicator::revoke(std::string const& reason) { group().revoke(reason); }

LIMBER_FN communicator communicator::shrink(std::span<int const> lost) {
  for (std::size_t i = 0; i < lost.size(); ++i) {
    limber::detail::check_rank("shrink", "lost rank", lost[i], size());
    expects(i == 0 || lost[i - 1] < lost[i], "shrink: lost ranks must be sorted, got ", lost[i], " after ",
            lost[i == 0 ? 0 : i - 1]);
    expects(lost[i] != rank_, "shrink: rank ", rank_, " cannot call itself lost");
  }
  detail::place p = group().shrink(rank_, {lost.begin(), lost.end()});
  return {std::move(p.where), p.rank};
}

LIMBER_FN void communicator::post(int peer, i64 tag, std::span<std::byte const> bytes) {
  limber::detail::check_rank("post", "peer", peer, size());
  group().post(rank_, peer, tag, bytes);
}
LIMBER_FN std::optional<message> communicator::poll(i64 tag) { return group().poll(rank_, tag); }
LIMBER_FN void communicator::listen() { group().listen(rank_); }

LIMBER_FN world::world(int size, options how) {
  expects(size >= 1, "threads: a world needs at least 1 rank, got ", size);
  expects(how.deadline > 0, "threads: deadline must be > 0 s, got ", how.deadline);
  expects(how.clock != nullptr, "threads: clock is empty");
  std::vector<int> world_ranks(static_cast<std::size_t>(size));
  std::iota(world_ranks.begin(), world_ranks.end(), 0);
  all_ = detail::group::make(std::make_shared<detail::world_state>(size, std::move(how)), world_ranks);
}
LIMBER_FN world::~world() {
  if (!all_) return;
  for (int r = 0; r < size(); ++r)
    if (take(r)) all_->leave(r, false);
}

LIMBER_FN int world::size() const noexcept { return all_->size(); }

LIMBER_FN communicator world::communicator(int rank) {
  limber::detail::check_rank("threads", "rank", rank, size());
  expects(take(rank), "threads: the communicator of rank ", rank, " was taken before");
  return {all_, rank};
}

LIMBER_FN bool world::take(int rank) {
  detail::world_state& state = all_->world();
  std::scoped_lock const lock(state.mutex);
  return !std::exchange(state.ranks[static_cast<std::size_t>(rank)].taken, true);
}

LIMBER_FN void run(int n, function_ref<void(communicator&)> f, options how) {
  world all(n, std::move(how));
  detail::world_state& state = all.all_->world();
  std::mutex guard;
  std::exception_ptr first;
  auto const fails = [&](int rank, std::string const& reason) {
    {
      std::scoped_lock const lock(guard);
      if (!first) first = std::current_exception();
    }
    // Other ranks fail only after the first exception is stored.
    detail::group::fail_with_rank(state, rank, reason);
  };
  auto const work = [&](int rank) {
    auto mine = all.communicator(rank);
    {
      std::scoped_lock const lock(state.mutex);
      state.ranks[static_cast<std::size_t>(rank)].supervised = true;
    }
    try {
      f(mine);
      detail::group::fail_unwound(state, rank);
    } catch (std::exception const& e) { fails(rank, text("threw: ", e.what())); } catch (...) {
      fails(rank, "threw something that is no std::exception");
    }
  };
  std::vector<std::thread> team;
  try {
    team.reserve(static_cast<std::size_t>(n));
    for (int r = 0; r < n; ++r) team.emplace_back(work, r);
  } catch (std::exception const& e) {
    for (int r = static_cast<int>(team.size()); r < n; ++r) fails(r, text("got no thread: ", e.what()));
  }
  for (auto& t : team) t.join();
  if (first) std::rethrow_exception(first);
}

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::threads
